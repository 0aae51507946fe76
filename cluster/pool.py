"""N Ray actors made from one plain class, called by the class's own methods."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.placement import Slot

PROBE_S = 5.0  # how long the dead are looked for when a call has failed

W = TypeVar("W")
A = TypeVar("A")
R = TypeVar("R")
P = ParamSpec("P")


class WorkerLost(RuntimeError):
    """A worker died or fell silent. `worker` names it, `method` is the call it did not answer."""

    def __init__(self, worker: str, method: str, reason: str) -> None:
        super().__init__(f"{worker} was lost in {method}: {reason}")
        self.worker = worker
        self.method = method
        self.reason = reason


class Pool(Generic[W]):
    """The workers of one role. Methods are passed unbound, so that calls are checked like any other:

    learners = Pool(Learner, slots, [(spec,) for spec in specs], env={"OMP_NUM_THREADS": "2"}, timeout_s=600)
    reports = learners.scatter(Learner.compute_gradients, shards)
    learners.broadcast(Learner.apply, decision)
    learners.close()
    """

    def __init__(
        self,
        worker: type[W],
        slots: Sequence[Slot],
        arguments: Sequence[tuple[Any, ...]],
        *,
        env: Mapping[str, str],
        timeout_s: float,
    ) -> None:
        """Start one actor per slot; returns before they are up.

        Args:
            worker: a plain class.
            slots: a reserved place per worker.
            arguments: of the class's constructor, per worker.
            env: environment variables of the workers' processes.
            timeout_s: a worker that takes longer than this for a call counts as lost.
        """
        self._timeout_s = timeout_s
        self.names = [f"{slot.bundle.role}-{i}" for i, slot in enumerate(slots)]
        self.handles = [
            _spawn(worker, slot, name, args, env) for slot, name, args in zip(slots, self.names, arguments, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.handles)

    def broadcast(self, method: Callable[Concatenate[W, P], R], *args: P.args, **kwargs: P.kwargs) -> list[R]:
        """Call `method` on every worker with the same arguments; results in worker order.

        Raises:
            WorkerLost: a worker died, or was silent for longer than the pool's time limit.
        """
        return self.begin(method, *args, **kwargs)()

    def begin(self, method: Callable[Concatenate[W, P], R], *args: P.args, **kwargs: P.kwargs) -> Callable[[], list[R]]:
        """Like `broadcast`, but returns at once; calling what it returns waits for the results."""
        name = method.__name__
        calls = [getattr(handle, name).remote(*args, **kwargs) for handle in self.handles]
        return lambda: self._gather(name, calls)

    def hosts(self) -> list[str]:
        """The address of each worker's node inside the cluster."""
        calls = [handle.__ray_call__.remote(lambda _: ray.util.get_node_ip_address()) for handle in self.handles]
        return self._gather("hosts", calls)

    def scatter(self, method: Callable[[W, A], R], items: Sequence[A]) -> list[R]:
        """Call `method` on worker i with item i; results in worker order. Errors as in `broadcast`."""
        name = method.__name__
        calls = [getattr(handle, name).remote(item) for handle, item in zip(self.handles, items, strict=True)]
        return self._gather(name, calls)

    def first(self, method: Callable[Concatenate[W, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `method` on worker 0 only. Errors as in `broadcast`."""
        name = method.__name__
        result: R = self._gather(name, [getattr(self.handles[0], name).remote(*args, **kwargs)])[0]
        return result

    def close(self) -> None:
        """Kill the workers; they hold nothing that must be saved."""
        for handle in self.handles:
            ray.kill(handle)

    def _gather(self, method: str, calls: list[Any]) -> list[Any]:
        # One wait per call, side by side: the first loss is reported at once although its peers may hang on it.
        pending = list(calls)
        results: dict[Any, Any] = {}
        while pending:
            ready, pending = ray.wait(pending, num_returns=1, timeout=self._timeout_s)
            if not ready:
                raise WorkerLost(self.names[calls.index(pending[0])], method, f"no answer in {self._timeout_s:g} s")
            try:
                results[ready[0]] = self._result(method, self.names[calls.index(ready[0])], ready[0])
            except WorkerLost:
                raise
            except Exception as error:
                # Often only what a worker says of a peer that has just died: then the death is what to tell.
                lost = self._death(method)
                if lost is not None:
                    raise lost from error
                raise
        return [results[call] for call in calls]

    def _result(self, method: str, name: str, call: Any) -> Any:
        try:
            return ray.get(call, timeout=self._timeout_s)
        except GetTimeoutError as error:
            raise WorkerLost(name, method, f"no answer in {self._timeout_s:g} s") from error
        except RayActorError as error:
            raise WorkerLost(name, method, _headline(error)) from error
        except RayTaskError as error:
            if isinstance(error.cause, RayError):  # it lost a worker that it had called itself
                raise WorkerLost(name, method, _headline(error.cause)) from error
            # What the worker itself raised, under its own type; Ray's wrapper holds the remote traceback.
            raise error.cause from error

    def _death(self, method: str) -> WorkerLost | None:
        """The first worker of this pool that is dead, if any is."""
        calls = [handle.__ray_call__.remote(lambda _: None) for handle in self.handles]
        answered, _ = ray.wait(calls, num_returns=len(calls), timeout=PROBE_S)  # a busy one is not dead
        for call in answered:
            try:
                self._result(method, self.names[calls.index(call)], call)
            except WorkerLost as lost:
                return lost
        return None


def _headline(error: Exception) -> str:
    """The first line of Ray's account; the rest, addresses and hints, goes to the log with the traceback."""
    return str(error).strip().partition("\n")[0]


def _spawn(worker: type[W], slot: Slot, name: str, arguments: tuple[Any, ...], env: Mapping[str, str]) -> Any:
    actor_class: Any = ray.remote(worker)
    placed = PlacementGroupSchedulingStrategy(slot.group, placement_group_bundle_index=slot.index)
    options = {
        "num_cpus": slot.bundle.cpus,
        "num_gpus": slot.bundle.gpus,
        "scheduling_strategy": placed,
        "runtime_env": {"env_vars": dict(env)},
        "_labels": {"evenkeel": name},
    }
    return actor_class.options(**options).remote(*arguments)
