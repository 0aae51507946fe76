"""Runs of the training loop in which learners are lost and the driver is killed as planned.

Fakes stand for the step, the crew and the checkpoints; recorder, run folder and restarts are real.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

from rich.console import Console

from actors.faults import Strike
from cluster.config import RestartsConfig
from cluster.worker import WorkerLost
from orchestrator.checkpoints.checkpoint import LEARNER, Checkpoint
from orchestrator.checkpoints.manifest import Manifest
from orchestrator.checkpoints.state import RunState
from orchestrator.clock import PhaseClock
from orchestrator.config import CheckpointConfig, ExperimentConfig
from orchestrator.crew.crew import Crew
from orchestrator.crew.fault_injection import FaultInjection
from orchestrator.crew.restarts import Restarts
from orchestrator.loop import TrainingLoop
from orchestrator.records import StepRecord
from orchestrator.run.checkpoints import RunCheckpoints
from orchestrator.run.folder import METRICS, RunFolder
from orchestrator.run.progress import Progress
from orchestrator.run.recorder import Recorder
from orchestrator.stability import StabilityConfig
from orchestrator.step import TrainingStep
from orchestrator.tracking.tracker import TrackedRun

STEPS = 9
PATIENCE = 2
CONFIG = ExperimentConfig.model_validate(
    {
        "name": "e",
        "model": {"path": "embedded"},
        "task": {"kind": "arithmetic"},
        "rollout": {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": 8},
        "scheduler": {"kind": "constant", "lr": 1e-6},
        "steps": STEPS,
    }
)


@dataclass(kw_only=True)
class Plan:
    """What a run is like, and what happens to it.

    Example:
        Plan(every=3, losses={14}, damaged={3}, deaths={30}, bad_from=5, on_collapse="stop", enough=6)
    """

    every: int | None = 4  # steps between checkpoints
    losses: set[int] = field(default_factory=set)  # numbers of the calls in which a learner is lost
    damaged: set[int] = field(default_factory=set)  # steps whose checkpoint turns out to be no good
    deaths: set[int] = field(default_factory=set)  # numbers of the calls in which the driver is killed
    staleness: Literal[0, 1] = 0  # 1: batches are sampled ahead
    slow: bool = False  # checkpoints are on the disk only when they are waited for
    bad_from: int | None = None  # the gradient is not finite from this step on
    on_collapse: Literal["stop", "record"] = "stop"
    enough: int | None = None  # who watches has seen enough after this step
    restarts: int = 1_000_000


class Killed(BaseException):
    """The driver dies; nothing of it must catch this."""


class World:
    """What is there beside the driver: the disk with its checkpoints, and fate."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.methods: list[tuple[int, str]] = []  # of all calls, with the step that was the last to begin
        self.begun: list[int] = []  # steps
        self.disk: dict[int, tuple[RunState, int]] = {}  # by step: state, weights
        self.saved: list[RunState] = []
        self.progress: list[int] = []  # steps recorded when the restarts were told of progress
        self.recovered: list[str | None] = []
        self.lost: list[str] = []  # methods
        self.ends = 0
        self.sent: list[int] = []  # steps, to MLflow
        self.told: list[str] = []
        self.seen: list[int] = []  # steps, by who watches in the process of now

    def call(self, method: str) -> None:
        """Whatever the driver asks of others; it may find them dead, or die itself."""
        self.methods.append((self.begun[-1] if self.begun else -1, method))
        if len(self.methods) in self.plan.deaths:
            raise Killed
        if len(self.methods) in self.plan.losses:
            self.lost.append(method)
            raise WorkerLost("learner-1", method, "it died")

    def rows(self) -> list[dict[str, float]]:
        """The metrics file, without what is measured anew."""
        lines = [json.loads(line) for line in (self.folder / METRICS).read_text().splitlines()]
        return [{key: row[key] for key in row if not key.startswith("time/")} for row in lines]


class CountedRestarts(Restarts):
    """Remembers when it was told of progress."""

    def __init__(self, world: World) -> None:
        super().__init__(RestartsConfig(learner=world.plan.restarts), lambda lost, remedy: None)
        self._world = world

    def progress(self) -> None:
        super().progress()
        self._world.progress.append(len(self._world.rows()))


class FakeGang:
    """Two learners; remembers what was done to them."""

    def __init__(self) -> None:
        self.struck: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return 2

    def strike(self, index: int, signum: int) -> None:
        self.struck.append((index, signum))


class FakeCrew:
    """Weights are a number; a gang that lost a rank has none until it starts again."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.restarts = CountedRestarts(world)
        self.learners = self.rollouts = self.scheduler = FakeGang()
        self.weights: int | None = 1
        self.is_saving = False  # a checkpoint; another gang knows nothing of it
        self.version = 0
        self.scheduled = {"decided": 0, "sum": 0}

    def start(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None:
            self.version = checkpoint.state.weight_version
            self.weights = self.world.disk[checkpoint.state.step][1]

    def gang(self, method: str) -> int:
        """Ask the learners for something; returns their weights."""
        assert self.weights is not None, f"{method} of a gang that is not there"
        try:
            self.world.call(method)
        except WorkerLost:
            self.weights = None
            raise
        return self.weights

    def decide(self, step: int, metrics: Mapping[str, float]) -> int:
        assert self.scheduled["decided"] == step, "decisions build on each other"
        self.scheduled = {"decided": step + 1, "sum": (3 * self.scheduled["sum"] + int(metrics["loss"])) % 101}
        return self.scheduled["sum"]

    def scheduler_state(self) -> dict[str, Any]:
        return dict(self.scheduled)

    def set_scheduler_state(self, state: dict[str, int]) -> None:
        self.scheduled = dict(state)

    def recover(self, lost: WorkerLost, checkpoint: str | None, version: int) -> None:
        self.restarts.spend(lost, "again")
        self.world.recovered.append(checkpoint)
        self.version, self.is_saving = version, False
        if checkpoint is None:
            self.weights = 1
        else:
            path = Path(checkpoint)
            assert path.name == LEARNER
            self.weights = self.world.disk[int(path.parent.name)][1]


class FakeStep:
    """Each number depends on all steps before it, by way of weights, cursor and scheduler."""

    def __init__(self, crew: FakeCrew) -> None:
        self.crew = crew
        self.sampler = SimpleNamespace(cursor=0)
        self.max_staleness: int = crew.world.plan.staleness
        self.ahead: int | None = None  # what was sampled ahead

    def sample(self, step: int) -> int:
        self.sampler.cursor += 4 + step % 3
        return int(self.sampler.cursor * (1 + self.crew.weights))

    def abandon(self) -> None:
        self.ahead = None

    def step(self, step: int, clock: PhaseClock, ahead: PhaseClock | None = None) -> StepRecord:
        crew = self.crew
        crew.world.begun.append(step)
        batch = self.sample(step) if self.ahead is None else self.ahead
        self.ahead = None if ahead is None else self.sample(step + 1)
        with clock.phase("gradients"):
            loss = crew.gang("compute_gradients") * batch % 97
        metrics = {"loss": float(loss), "cursor": float(self.sampler.cursor), "version": float(crew.version)}
        decision = crew.decide(step, metrics)
        with clock.phase("apply"):
            crew.weights = (crew.gang("apply") * 7 + decision) % 1009
        crew.version += 1
        with clock.phase("publish"):
            crew.gang("publish")
        bad_from = crew.world.plan.bad_from
        bad = bad_from is not None and step >= bad_from
        metrics |= {"decision": float(decision), "gradient/nonfinite": float(bad), **clock.metrics()}
        events = ("decay",) if decision % 2 else ()
        return StepRecord(step=step, time_ms=0, metrics={**metrics, "scheduler/lr": 1e-6}, events=events)


class FakeCheckpoints:
    """On the world's disk. One that is slow is there when it was waited for; a loss meanwhile is told then."""

    def __init__(self, world: World, crew: FakeCrew) -> None:
        self.world = world
        self.crew = crew
        self.under_way: tuple[RunState, int] | None = None

    def due(self, step: int, last: int) -> bool:
        every = self.world.plan.every
        return every is not None and CheckpointConfig(every=every).due(step, last)

    def begin(self, state: RunState) -> None:
        self.finish()
        recorded = (self.world.folder / METRICS).read_bytes()[: state.metrics_bytes]
        assert recorded.count(b"\n") == state.step, "the steps of a checkpoint are recorded before it"
        self.under_way = state, self.crew.gang("save")
        self.crew.is_saving = True
        self.world.saved.append(state)

    def check(self) -> None:
        if self.under_way is not None and not self.world.plan.slow:
            self.finish()

    def finish(self) -> None:
        if self.under_way is not None:
            assert self.crew.is_saving
            self.crew.gang("written")
            state, weights = self.under_way
            self.world.disk = {step: kept for step, kept in self.world.disk.items() if step < state.step}
            self.world.disk[state.step] = state, weights
            self.under_way = None

    def abandon(self) -> None:
        self.under_way = None

    def newest(self) -> Checkpoint | None:
        good = [step for step in self.world.disk if step not in self.world.plan.damaged]
        if not good:
            return None
        path = Path("/checkpoints") / str(max(good))
        return Checkpoint(
            path=path, state=self.world.disk[max(good)][0], config={}, manifest=Manifest(fingerprint="", files=())
        )


class FakeTracked:
    def __init__(self, world: World) -> None:
        self.world = world

    def log_step(self, record: StepRecord) -> None:
        self.world.sent.append(record.step)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        pass


class FakeWatch:
    def __init__(self, world: World) -> None:
        self.world = world
        world.seen.clear()

    def see(self, record: StepRecord) -> bool:
        self.world.seen.append(record.step)
        return self.world.plan.enough is None or record.step < self.world.plan.enough

    def closing_tags(self) -> dict[str, str]:
        raise AssertionError("the loop does not end the run")


class Process:
    """One life of the driver: everything that is in its memory."""

    def __init__(self, world: World, folder: RunFolder, progress: Progress) -> None:
        self.world = world
        self.folder = folder
        self.crew = FakeCrew(world)
        self.step = FakeStep(self.crew)
        self.checkpoints = FakeCheckpoints(world, self.crew)
        self.is_ended_at_once = False
        plan, ahead = world.plan, len(list(folder.metrics.rows()))
        stability = StabilityConfig(on_collapse=plan.on_collapse, patience=PATIENCE)
        tracked = cast(TrackedRun, FakeTracked(world))
        self.recorder = Recorder(folder, tracked, progress, stability, ahead, watch=FakeWatch(world))

    def run(self, last: int, strikes: Sequence[Strike] = ()) -> None:
        if not self.recorder.review(self.folder.metrics.rows()):
            self.is_ended_at_once = True
            return
        found = self.checkpoints.newest()
        self.crew.start(found)
        loop = TrainingLoop(
            step=cast(TrainingStep, self.step),
            crew=cast(Crew, self.crew),
            recorder=self.recorder,
            checkpoints=cast(RunCheckpoints, self.checkpoints),
            faults=FaultInjection(strikes, cast(Crew, self.crew)),
            mlflow_run_id=lambda: "0c41f0",
        )
        loop.run(found.state if found else None, last, self.at_end)

    def at_end(self) -> None:
        assert self.checkpoints.under_way is None
        self.crew.gang("export")
        self.world.ends += 1


@contextmanager
def process_of(world: World) -> Iterator[Process]:
    out = StringIO()
    try:
        with RunFolder.reopen(world.folder, CONFIG, seed=0) as folder:
            yield Process(world, folder, Progress(Console(file=out), "e", STEPS))
    finally:
        world.told += out.getvalue().splitlines()


def finish(world: World, last: int = STEPS - 1) -> Process:
    """Run to the end, started anew as often as the driver is killed."""
    while True:
        try:
            with process_of(world) as process:
                process.run(last)
                if not process.is_ended_at_once:
                    process.recorder.conclude()
                return process
        except Killed:
            continue


def end_of(process: Process) -> tuple[int | None, int, int, dict[str, int], str]:
    """Where everything stands."""
    crew = process.crew
    return crew.weights, crew.version, process.step.sampler.cursor, crew.scheduled, process.recorder.end


def undisturbed(folder: Path, plan: Plan) -> tuple[World, Process]:
    world = World(folder, replace(plan, losses=set(), damaged=set(), deaths=set()))
    return world, finish(world)
