"""N Ray actors made from one plain class, called by the class's own methods."""

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from threading import Lock
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from cluster.placement import Slot
from cluster.shared import shared_process
from cluster.waiting import Patience, RollCall, answers
from cluster.worker import Call, Worker, WorkerLost

W = TypeVar("W")
A = TypeVar("A")
R = TypeVar("R")
P = ParamSpec("P")


class Pool(Generic[W]):
    """The workers of one role. Methods are passed unbound, so that calls are checked like any other:

    learners = Pool(Learner, slots, [(spec,) for spec in specs], env={"OMP_NUM_THREADS": "2"}, patience=patience)
    reports = learners.scatter(Learner.compute_gradients, shards)
    learners.broadcast(Learner.apply, decision)
    learners.close()

    Every call raises WorkerLost when a worker dies, gives no sign of life, or takes too long.
    """

    def __init__(  # noqa: PLR0913 - all that workers are made of
        self,
        worker: type[W],
        slots: Sequence[Slot],
        arguments: Sequence[tuple[Any, ...]],
        *,
        env: Mapping[str, str],
        patience: Patience,
        per_process: int | None = None,
        title: str = "",
    ) -> None:
        """Start one worker per slot; returns before they are up.

        Args:
            worker: a plain class.
            slots: a reserved place per worker.
            arguments: of the class's constructor, per worker.
            env: environment variables of the workers' processes.
            patience: how long workers are waited for.
            per_process: so many workers share an actor, whose end is that of all; None makes an actor of each.
            title: of what they work for, to be shown by Ray beside their names.
        """
        self._class = worker
        self._slots = slots
        self._arguments = arguments
        self._env = env
        self._patience = patience
        self._per_process = per_process
        self._title = title
        self._beside: list[Pool[Any]] = []
        self._calling = Lock()
        self.names = [f"{slot.seat.role}-{i}" for i, slot in enumerate(slots)]
        self.workers: list[Worker] = []
        for process in self._processes(range(len(slots))):
            self.workers += self._spawn(process)

    def __len__(self) -> int:
        return len(self.workers)

    @property
    def handles(self) -> list[Any]:
        """For workers of another role that call these: Ray's handles, of workers that share a process `Member`s."""
        return [worker.address for worker in self.workers]

    def needing(self, other: "Pool[Any]") -> "Pool[W]":
        """These same workers, for calls in which they call `other`'s: a loss there ends the waiting, too."""
        same = copy(self)
        same._beside = [*self._beside, other]
        return same

    def broadcast(self, method: Callable[Concatenate[W, P], R], *args: P.args, **kwargs: P.kwargs) -> list[R]:
        """Call `method` on every worker with the same arguments; results in worker order."""
        return self.begin(method, *args, **kwargs)()

    def begin(self, method: Callable[Concatenate[W, P], R], *args: P.args, **kwargs: P.kwargs) -> Callable[[], list[R]]:
        """Like `broadcast`, but returns at once; calling what it returns waits for the results."""
        calls = self._made(worker.call(method.__name__, *args, **kwargs) for worker in self.workers)
        return lambda: self._gather(calls)

    def begin_some(self, method: Callable[[W], R], indices: Sequence[int]) -> Callable[[], list[R]]:
        """Like `begin`, on the workers of these numbers only."""
        calls = self._made(self.workers[index].call(method.__name__) for index in indices)
        return lambda: self._gather(calls)

    def scatter(self, method: Callable[[W, A], R], items: Sequence[A]) -> list[R]:
        """Call `method` on worker i with item i; results in worker order."""
        pairs = zip(self.workers, items, strict=True)
        return self._gather(self._made(worker.send(method.__name__, item) for worker, item in pairs))

    def first(self, method: Callable[Concatenate[W, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `method` on worker 0 only."""
        result: R = self._gather([self.workers[0].call(method.__name__, *args, **kwargs)])[0]
        return result

    def aside(self, method: Callable[[W, A], R], item: A, call_s: float) -> list[R]:
        """Call `method` on every worker, beside whatever they are at, and wait `call_s` at most for the results."""
        calls = [worker.call_aside(method.__name__, item) for worker in self.workers]
        return self._gather(calls, replace(self._patience, call_s=call_s))

    def attempt(self, method: Callable[[W, A], R], items: Mapping[int, A]) -> tuple[dict[int, R], list[WorkerLost]]:
        """Call `method` on worker i with items[i]: the results there are, and who was lost instead of answering."""
        calls = {self.workers[i].send(method.__name__, item): i for i, item in items.items()}
        results: dict[int, R] = {}
        lost: list[WorkerLost] = []
        for call, outcome in answers(list(calls), self._workers_beside(), self._patience):
            if isinstance(outcome, WorkerLost):
                lost.append(outcome)
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                results[calls[call]] = outcome
        return results, lost

    def hosts(self) -> list[str]:
        """The address of each worker's node inside the cluster."""
        return self._gather([worker.host() for worker in self.workers])

    def lost(self) -> list[WorkerLost]:
        """Who is dead or silent now; bounded by how long a worker may be silent."""
        return RollCall(self.workers, self._patience.silence_s).complete("roll call")

    def respawn(self, indices: Iterable[int]) -> set[int]:
        """Put fresh workers in the places of these, and of those who share their processes; returns who is fresh.

        Returns before they are up.
        """
        fresh: set[int] = set()
        for process in self._processes(indices):
            self.workers[process[0]].kill()
            self.workers[process[0] : process[-1] + 1] = self._spawn(process)
            fresh.update(process)
        return fresh

    def rebuild(self, arguments: Sequence[tuple[Any, ...]]) -> None:
        """Put fresh workers in all places, made with these arguments, as all who follow them there will be."""
        self._arguments = arguments
        self.respawn(range(len(self)))

    def strike(self, index: int, signum: signal.Signals) -> None:
        """Have a worker get a signal, at once: a fault on purpose."""
        self.workers[index].strike(signum)

    def close(self) -> None:
        """Kill the workers; they hold nothing that must be saved."""
        for process in self._processes(range(len(self))):
            self.workers[process[0]].kill()

    def _processes(self, indices: Iterable[int]) -> list[range]:
        """The processes that these workers are in, each as the numbers of all its workers."""
        size = self._per_process or 1
        firsts = sorted({index // size * size for index in indices})
        return [range(first, min(first + size, len(self._slots))) for first in firsts]

    def _spawn(self, process: range) -> list[Worker]:
        part = slice(process.start, process.stop)
        slots, names, arguments = self._slots[part], self.names[part], self._arguments[part]
        if self._per_process is None:
            return [Worker(self._class, slots[0], names[0], arguments[0], self._env, self._title)]
        return shared_process(self._class, slots, names, arguments, self._env, title=self._title)

    def _made(self, calls: Iterable[Call]) -> list[Call]:
        """These calls, made now: all workers get the calls of all threads in one order, which collective ones need."""
        with self._calling:
            return list(calls)

    def _workers_beside(self) -> list[Worker]:
        return [worker for pool in self._beside for worker in pool.workers]

    def _gather(self, calls: Sequence[Call], patience: Patience | None = None) -> list[Any]:
        results: dict[Any, Any] = {}
        needed = [*(call.worker for call in calls), *self._workers_beside()]  # what they do, they may do together
        for call, outcome in answers(calls, needed, patience or self._patience):
            if isinstance(outcome, Exception):
                raise self._culprit(call, outcome)
            results[call.ref] = outcome
        return [results[call.ref] for call in calls]

    def _culprit(self, call: Call, error: Exception) -> Exception:
        """What to tell of a failed call: often it is only what a worker says of a peer that has just died."""
        others = [worker for worker in [*self.workers, *self._workers_beside()] if worker is not call.worker]
        found = RollCall([call.worker, *others], self._patience.silence_s).complete(call.method)
        if not found or (isinstance(error, WorkerLost) and error.worker in {lost.worker for lost in found}):
            return error
        found[0].__cause__ = error
        return found[0]
