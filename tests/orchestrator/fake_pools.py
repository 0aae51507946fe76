"""Pools without Ray: their workers are objects in this process, and are lost when a test says so."""

import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from scheduler_inputs import report

from actors.config import LearnerConfig
from actors.lr_policies import LengthTriggeredConfig
from actors.messages import GradientReport, LearnerShard, Response, SampleRequest, SavedFile, StepDecision, UpdateReport
from actors.rollout_worker import EngineShape
from actors.scheduler import Scheduler
from cluster.config import RestartsConfig
from cluster.worker import WorkerLost
from orchestrator.crew.crew import Crew
from orchestrator.crew.restarts import Restarts

SHAPE = EngineShape(block_size=16, max_model_len=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeCall:
    """A call that reached a worker; as text, it is shown with those arguments that are text or numbers.

    Example:
        str(FakeCall(worker="learner-0", method="load", args=("step-8",)))      # "learner-0 load step-8"
    """

    worker: str
    method: str
    args: tuple[Any, ...]

    def __str__(self) -> str:
        return " ".join([self.worker, self.method, *(str(arg) for arg in self.args if isinstance(arg, str | int))])


Journal = list[FakeCall]


class FakePool:
    """The workers of a role, called as a pool calls them. All that reaches one of them stands in the journal."""

    def __init__(self, role: str, num: int, make: Callable[[int], Any], journal: Journal) -> None:
        self.names = [f"{role}-{i}" for i in range(num)]
        self.workers = [make(i) for i in range(num)]
        self.struck: list[tuple[int, signal.Signals]] = []
        self._make = make
        self._journal = journal
        self._needed: list[FakePool] = []
        self._dead: set[int] = set()
        self._calls: Counter[tuple[int, str]] = Counter()
        self._fatal: defaultdict[tuple[int, str], set[int]] = defaultdict(set)

    def lose(self, index: int, method: str, *calls: int) -> None:
        """Have a worker die in these calls of a method from here on, the next one when none is given.

        They are counted from 1, and on in the worker's successors.
        """
        self._fatal[index, method] |= {self._calls[index, method] + call for call in calls or (1,)}

    def outcome(self, index: int, method: str, *args: Any) -> Any:
        """What comes of a call: a result or a WorkerLost."""
        name = self.names[index]
        if index in self._dead:
            return WorkerLost(name, method, "it is dead")
        self._journal.append(FakeCall(worker=name, method=method, args=args))
        self._calls[index, method] += 1
        if self._calls[index, method] in self._fatal[index, method]:
            self._dead.add(index)
            return WorkerLost(name, method, "it died")
        try:
            return getattr(self.workers[index], method)(*args)
        except WorkerLost as lost:
            noticed = [other for pool in self._needed for other in pool.names]
            assert lost.worker in noticed, f"{name} waits for {lost.worker} for ever"
            return lost

    def __len__(self) -> int:
        return len(self.workers)

    @property
    def handles(self) -> list["FakeHandle"]:
        return [FakeHandle(self, index) for index in range(len(self))]

    def needing(self, other: "FakePool") -> "FakePool":
        same = copy(self)
        same._needed = [*self._needed, other]
        return same

    def broadcast(self, method: Any, *args: Any) -> list[Any]:
        return _whole([self.outcome(index, method.__name__, *args) for index in range(len(self))])

    def begin_some(self, method: Any, indices: Sequence[int]) -> Callable[[], list[Any]]:
        outcomes = [self.outcome(index, method.__name__) for index in indices]
        return lambda: _whole(outcomes)

    def begin(self, method: Any, *args: Any) -> Callable[[], list[Any]]:
        outcomes = [self.outcome(index, method.__name__, *args) for index in range(len(self))]
        return lambda: _whole(outcomes)

    def scatter(self, method: Any, items: Sequence[Any]) -> list[Any]:
        assert len(items) == len(self)
        return _whole([self.outcome(index, method.__name__, item) for index, item in enumerate(items)])

    def first(self, method: Any, *args: Any) -> Any:
        return _whole([self.outcome(0, method.__name__, *args)])[0]

    def aside(self, method: Any, item: Any, call_s: float) -> list[Any]:
        return self.broadcast(method, item)

    def attempt(self, method: Any, items: Mapping[int, Any]) -> tuple[dict[int, Any], list[WorkerLost]]:
        outcomes = {index: self.outcome(index, method.__name__, item) for index, item in items.items()}
        lost = [outcome for outcome in outcomes.values() if isinstance(outcome, WorkerLost)]
        return {index: outcome for index, outcome in outcomes.items() if not isinstance(outcome, WorkerLost)}, lost

    def hosts(self) -> list[str]:
        return [f"host-of-{name}" for name in self.names]

    def lost(self) -> list[WorkerLost]:
        return [WorkerLost(self.names[index], "roll call", "it is dead") for index in sorted(self._dead)]

    def respawn(self, indices: Iterable[int]) -> set[int]:
        fresh = set(indices)
        for index in fresh:
            self._dead.discard(index)
            self.workers[index] = self._make(index)
        return fresh

    def rebuild(self, arguments: Sequence[tuple[Any, ...]]) -> None:
        """Of schedulers, which are real ones."""
        self._make = lambda index: Scheduler(*deepcopy(arguments[index]))
        self.respawn(range(len(self)))

    def strike(self, index: int, signum: signal.Signals) -> None:
        self.struck.append((index, signum))


class FakeHandle:
    """What workers of another role call a worker by. It does not lead to the worker's successor."""

    def __init__(self, pool: FakePool, index: int) -> None:
        self._pool = pool
        self._index = index
        self._worker = pool.workers[index]

    def receive(self, version: int, weights: str) -> None:
        if self._pool.workers[self._index] is not self._worker:
            raise WorkerLost(self._pool.names[self._index], "receive", "it was replaced")
        _whole([self._pool.outcome(self._index, "receive", version, weights)])


class FakeRolloutWorker:
    """Its responses are their seeds, and say which weights it had. Like a real one it wakes up by itself."""

    def __init__(self) -> None:
        self.up = False
        self.asleep = False
        self.version = 0
        self.weights = "model"

    def start(self) -> EngineShape:
        self.up = True
        return SHAPE

    def receive(self, version: int, weights: str) -> None:
        assert self.up
        self.version, self.weights = version, weights

    def sleep(self) -> None:
        assert self.up
        self.asleep = True

    def generate(self, requests: Sequence[SampleRequest]) -> list[tuple[Response, ...]]:
        assert self.up
        self.asleep = False
        return [tuple(response(seed, self.version) for seed in request.seeds) for request in requests]


class FakeLearner:
    """Its weights are the folder that it has loaded unless it saved that itself, and a step more with every update."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.weights = "model"
        self._handles: Sequence[FakeHandle] | None = None
        self._saved: dict[str, str] = {}

    def open_rendezvous(self, host: str) -> str:
        return f"{host}:29500"

    def start(self, address: str) -> None:
        pass

    def load(self, folder: str) -> None:
        self.weights = self._saved.get(folder, folder)

    def connect(self, host: str, handles: Sequence[FakeHandle]) -> None:
        self._handles = handles

    def publish(self, version: int) -> None:
        assert self._handles is not None, "connect comes first"
        for handle in self._handles if self.rank == 0 else []:
            handle.receive(version, self.weights)

    def compute_gradients(self, shard: LearnerShard) -> GradientReport:
        return report(4.0 + self.rank)

    def token_records(self) -> list[Any]:
        return []

    def apply(self, order: StepDecision) -> UpdateReport:
        self.weights += "+1"
        return UpdateReport(update_square_sum=1.0, weight_square_sum=4.0)

    def save(self, folder: str) -> None:
        self._saved[folder] = self.weights

    def written(self, timeout_s: float) -> tuple[SavedFile, ...]:
        return (SavedFile(name=f"learner/{self.rank}", num_bytes=1, sha256="00"),)


def response(seed: int, version: int) -> Response:
    return Response(
        token_ids=np.array([seed], np.int32), logprobs=np.zeros(1, np.float32), finished=True, weight_version=version
    )


def request(*seeds: int) -> SampleRequest:
    return SampleRequest(prompt_ids=np.array([1, 2], np.int32), seeds=seeds)


def seeds_of(responses: Sequence[Sequence[Response]]) -> list[tuple[int, ...]]:
    return [tuple(int(one.token_ids[0]) for one in of_one_prompt) for of_one_prompt in responses]


def rollout_pool(num: int, journal: Journal) -> FakePool:
    return FakePool("rollout", num, lambda index: FakeRolloutWorker(), journal)


class Simulation:
    """A crew of two rollout workers, two learners and a real scheduler.

    Its policy decays the learning rate once responses have become long.

    simulation = Simulation(learner=2)
    simulation.crew.start()
    simulation.spoken()         # what reached the workers since the last time, as text
    """

    def __init__(self, *, colocated: bool = False, transfer_heals: bool = True, **allowed: int) -> None:
        """Args: allowed: restarts by role, where not as by default; the others as a crew's."""
        self.journal: Journal = []
        self.told: list[str] = []
        self.rollouts = rollout_pool(2, self.journal)
        self.learners = FakePool("learner", 2, FakeLearner, self.journal)
        self.scheduler = FakePool("scheduler", 1, lambda index: length_scheduler(), self.journal)
        self.crew = Crew(
            rollouts=cast(Any, self.rollouts),
            learners=cast(Any, self.learners),
            scheduler=cast(Any, self.scheduler),
            restarts=Restarts(
                RestartsConfig(**allowed), lambda lost, remedy: self.told.append(f"{lost.worker}: {remedy}")
            ),
            colocated=colocated,
            transfer_heals=transfer_heals,
        )

    def spoken(self) -> list[str]:
        """What reached the workers since the last time."""
        lines = [str(call) for call in self.journal]
        self.journal.clear()
        return lines

    def weights(self) -> list[tuple[int, str]]:
        """Version and weights of each rollout worker."""
        return [(worker.version, worker.weights) for worker in self.rollouts.workers]


def length_scheduler() -> Scheduler:
    policy = LengthTriggeredConfig(lr=1e-3, baseline_steps=2, smoothing=1.0, patience=1).build(total_steps=None)
    return Scheduler(policy, LearnerConfig())


def _whole(outcomes: list[Any]) -> list[Any]:
    for outcome in outcomes:
        if isinstance(outcome, WorkerLost):
            raise outcome
    return outcomes
