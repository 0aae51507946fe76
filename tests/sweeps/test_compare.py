"""Comparisons whose runs are stand-ins: in which order, under which parent, and what is left when one of them fails."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
from experiment_files import changed
from rich.console import Console
from run_folders import everything
from small_disk import fill, small_disk

from cluster.session import Session
from cluster.worker import WorkerLost
from orchestrator import yaml_files
from orchestrator.checkpoints.writer import CheckpointFailed
from orchestrator.config_errors import ConfigError
from orchestrator.experiment_file import ExperimentFile
from orchestrator.model_files import ModelFiles
from orchestrator.records import RunCard
from orchestrator.run.folder import METRICS, RunFolder, RunFolderFull
from orchestrator.run.lock import LOCK, RunInUse, is_locked, run_lock
from orchestrator.run.resume import check_resumable
from orchestrator.run_spec import RunSpec
from orchestrator.task_problems import TaskFiles
from orchestrator.tracking.jobs import OpenRun
from orchestrator.tracking.store import MlflowStore
from orchestrator.tracking.tracker import TrackedRun, Tracker
from sweeps import compare
from sweeps.compare import COMPARISON, Comparison
from sweeps.report import FIGURE, REPORT
from sweeps.runs import find_runs

STEPS = 3
ARMS = {"baseline": {"scheduler": {"kind": "constant"}}, "decay": {}}
NO_ROOM = CheckpointFailed(80, Path("runs/x"), "No space left on device", disk_full=True, last_good=40)
Fate = Callable[[RunFolder], None]  # befalls a run after its first step
Run = tuple[str, int]  # arm and seed


class FakeStore:
    """MLflow as a dict of runs; artifacts are the bytes that the file had when it was sent."""

    def __init__(self) -> None:
        self.cards: dict[str, list[RunCard]] = {}  # by uid, of each time it was opened
        self.parents: dict[str, str | None] = {}
        self.artifacts: dict[str, dict[str, bytes]] = {}
        self.ends: list[str] = []

    def open_run(self, card: RunCard, parent_id: str | None) -> str:
        self.cards.setdefault(card.uid, []).append(card)
        self.parents[card.uid] = parent_id
        return card.uid

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        assert run_id in self.cards

    def log_artifact(self, run_id: str, path: Path) -> None:
        self.artifacts.setdefault(run_id, {})[path.name] = path.read_bytes()

    def end_run(self, run_id: str, status: str) -> None:
        self.ends.append(status)


class FakeTracker:
    """Does every job at once."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store

    def add(self, run: TrackedRun) -> None:
        pass

    def submit(self, job: OpenRun) -> None:
        job.do(cast(MlflowStore, self.store))

    def tell_refused(self, what: str, error: Exception) -> None:
        raise AssertionError(what)


class World:
    """Where comparisons take place: a folder of runs, MLflow, a screen, and what befalls which run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.store = FakeStore()
        self.screen = StringIO()
        self.console = Console(file=self.screen, width=120)
        self.fates: dict[Run, Fate] = {}
        self.is_recorded = True  # else runs end before their first step, and there is no figure to draw
        self.specs: list[RunSpec] = []  # of all runs that began
        self.trained: list[Run] = []
        self.passed_over: list[Run] = []
        self.parents: list[str | None] = []

    def comparison(self, *, resume: bool = False, **changes: Any) -> Comparison:
        """As the command line makes it."""
        file = self.folder / "e.yaml"
        file.write_text(yaml_files.dump(changed({"steps": STEPS, "arms": ARMS, "seeds": [0, 1], **changes})))
        experiment = ExperimentFile.read(str(file), [])
        arms = {arm: experiment.resolve(arm) for arm in experiment.arms()}
        specs = [
            RunSpec(
                config=config,
                model=ModelFiles(path="embedded", context_length=512),
                task=TaskFiles.open(config, str(file)),
                arm=arm,
                seed=config.seeds[0],
                folder=self.runs,
                resume=resume,
            )
            for arm, config in arms.items()
        ]
        comparison = Comparison(specs, self.runs, self.console)
        for spec in comparison.specs() if resume else []:
            check_resumable(spec.folder, spec.config, spec.seed, str(file))
        return comparison

    def run(self, *, resume: bool = False, **changes: Any) -> None:
        self.comparison(resume=resume, **changes).run(cast(Tracker, FakeTracker(self.store)), Session(local=True))

    @property
    def place(self) -> Path:
        return self.runs / "e"

    @property
    def uid(self) -> str:
        return str(json.loads((self.place / COMPARISON).read_text())["uid"])

    def drawn(self) -> dict[str, bytes]:
        return {name: (self.place / name).read_bytes() for name in (FIGURE, REPORT)}

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.screen.getvalue().splitlines() if line.startswith("warning: ")]


class FakeExperiment:
    """A run in its real folder, without workers."""

    def __init__(self, world: World, spec: RunSpec) -> None:
        self.world = world
        self.spec = spec

    def run(self, tracker: Tracker, parent: TrackedRun) -> None:
        world, spec, key = self.world, self.spec, (self.spec.arm, self.spec.seed)
        world.specs.append(spec)
        world.parents.append(parent.known_id)
        opened = RunFolder.reopen if spec.resume else RunFolder.create
        with opened(spec.folder, spec.config, spec.seed) as folder:
            if folder.is_over:
                world.passed_over.append(key)
                return
            world.trained.append(key)
            for step in range(len(list(folder.metrics.rows())), spec.config.steps if world.is_recorded else 0):
                folder.write_step(step, {"reward/mean": step / 10, "response/length_mean": 10.0})
                if fate := world.fates.get(key):
                    fate(folder)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setattr(compare, "Experiment", lambda spec, crews, console: FakeExperiment(world, spec))
    return world


def raising(error: BaseException) -> Fate:
    def fate(folder: RunFolder) -> None:
        raise error

    return fate


def keys(specs: list[RunSpec]) -> list[Run]:
    return [(spec.arm, spec.seed) for spec in specs]


# All is well.


def test_every_arm_runs_with_every_seed_below_one_parent(world: World) -> None:
    world.run()
    assert world.trained == [("baseline", 0), ("decay", 0), ("baseline", 1), ("decay", 1)]
    assert [spec.folder for spec in world.specs] == [world.place / arm / f"seed-{seed}" for arm, seed in world.trained]
    assert [spec.config.scheduler.kind for spec in world.specs] == 2 * ["constant", "length_triggered"]
    assert world.parents == 4 * [world.uid]
    [[card]] = world.store.cards.values()
    assert (card.name, card.tags["arms"], card.tags["seeds"]) == ("e comparison", "baseline, decay", "0, 1")
    assert world.store.ends == ["FINISHED"]
    assert world.store.artifacts == {world.uid: world.drawn()}
    assert world.warnings == []


def test_what_a_comparison_leaves_beside_its_arms_is_taken_for_no_run(world: World) -> None:
    world.run()
    files = {path.name for path in world.place.iterdir() if path.is_file()}
    assert files == {COMPARISON, FIGURE, REPORT, "report.csv", "curves.csv", LOCK}
    assert list(find_runs(world.runs)) == ["e/baseline/seed-0", "e/baseline/seed-1", "e/decay/seed-0", "e/decay/seed-1"]


def test_a_comparison_that_does_not_go_on_is_another_one(world: World) -> None:
    world.run(seeds=[0])
    first = world.uid
    world.run(seeds=[0])
    assert world.parents == 2 * [first] + 2 * [world.uid]
    assert first != world.uid


# Going on.


def test_a_comparison_that_goes_on_has_its_parent_and_passes_over_what_is_done(world: World) -> None:
    world.fates[("decay", 0)] = raising(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        world.run()
    first = world.uid
    assert not any(spec.resume for spec in world.specs)
    world.specs, world.trained, world.fates = [], [], {}
    world.run(resume=True)
    assert world.uid == first
    assert world.parents == 6 * [first]
    assert all(spec.resume for spec in world.specs)
    assert world.passed_over == [("baseline", 0)]
    assert world.trained == [("decay", 0), ("baseline", 1), ("decay", 1)]
    assert world.store.ends == ["KILLED", "FINISHED"]
    assert world.warnings == []


@pytest.mark.parametrize(
    ("changes", "added"),
    [
        ({"arms": {**ARMS, "twin": {}}}, [("twin", 0), ("twin", 1)]),
        ({"arms": {"twin": {}, **ARMS}}, [("twin", 0), ("twin", 1)]),
        ({"seeds": [0, 1, 7]}, [("baseline", 7), ("decay", 7)]),
        ({"seeds": [7, 1, 0], "arms": {**ARMS, "twin": {}}}, [("baseline", 7), ("decay", 7)]),
    ],
)
def test_a_comparison_may_go_on_with_more_arms_and_seeds(
    world: World, changes: dict[str, Any], added: list[Run]
) -> None:
    world.run()
    first, before = world.uid, {run: everything(run) for run in find_runs(world.runs).values()}
    done, world.specs, world.trained = set(world.trained), [], []
    world.run(resume=True, **changes)
    arms, seeds = list(changes.get("arms", ARMS)), changes.get("seeds", [0, 1])
    every = [(arm, seed) for seed in seeds for arm in arms]
    assert keys(world.specs) == every
    assert all(spec.resume for spec in world.specs)
    assert [spec.folder for spec in world.specs] == [world.place / arm / f"seed-{seed}" for arm, seed in every]
    assert [list(spec.config.seeds) for spec in world.specs] == len(every) * [seeds]
    assert set(added) <= set(world.trained)
    assert world.trained == [run for run in every if run not in done]
    assert world.passed_over == [run for run in every if run in done]
    for run, files in before.items():
        assert everything(run)[METRICS] == files[METRICS]
    assert world.parents == (4 + len(every)) * [first]
    assert world.store.cards[first][-1].tags["arms"] == ", ".join(arms)
    assert world.store.cards[first][-1].params.keys() == set(arms)
    assert len(find_runs(world.runs)) == len(every)


def test_a_comparison_goes_on_that_has_not_begun(world: World) -> None:
    world.run(resume=True, seeds=[0])
    assert world.trained == [("baseline", 0), ("decay", 0)]
    assert world.parents == 2 * [world.uid]
    assert world.warnings == []


# Its file.


@pytest.mark.parametrize(
    "damaged",
    [b"", b'{"uid": "0', b"{}", b"[]", b'{"uid": 5}', b'{"uid": "x\' or 1"}', b"\xff\xfe", b"[" * 100_000, b"\0" * 42],
    ids=range(9),
)
def test_a_damaged_file_costs_the_parent_and_no_run(world: World, damaged: bytes) -> None:
    world.is_recorded = False
    world.run(seeds=[0])
    first = world.uid
    (world.place / COMPARISON).write_bytes(damaged)
    world.run(resume=True, seeds=[0])
    assert re.fullmatch("[0-9a-f]{32}", world.uid)
    assert world.uid != first
    assert world.parents == 2 * [first] + 2 * [world.uid]
    [warning] = world.warnings
    assert warning.startswith(f"warning: {world.place / COMPARISON} cannot be used (")
    assert warning.endswith("); the comparison becomes a new one at MLflow, with the same runs")
    world.run(resume=True, seeds=[0])
    assert world.parents[-2:] == 2 * [world.uid]
    assert len(world.warnings) == 1


def test_a_file_is_replaced_once_the_new_one_is_on_the_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.is_recorded = False
    world.run(seeds=[0])
    before, synced = (world.place / COMPARISON).read_bytes(), list[bytes]()

    def fsync(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").read_bytes())
        assert (world.place / COMPARISON).read_bytes() == before
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "fsync", fsync)
        world.run(seeds=[0])
    assert (world.place / COMPARISON).read_bytes() == before
    [content] = synced
    assert re.fullmatch('{"uid": "[0-9a-f]{32}"}\n', content.decode())
    world.run(seeds=[0], resume=True)
    assert json.loads(before)["uid"] == world.uid


@pytest.fixture
def disk(world: World) -> Iterator[Path]:
    with small_disk(world.runs, mib=16) as place:  # a report is about 5
        yield place


def test_a_full_disk_at_the_start_is_told_and_nothing_is_tracked(world: World, disk: Path) -> None:
    ballast = fill(disk)
    with pytest.raises(RunFolderFull, match=rf"e/{COMPARISON} cannot be written: No space left on device; make room"):
        world.run()
    assert (world.store.cards, world.specs) == ({}, [])
    assert [path.name for path in world.place.iterdir()] == [LOCK]
    ballast.unlink()
    world.run(resume=True, seeds=[0])
    assert world.store.ends == ["FINISHED"]


def test_a_full_disk_leaves_the_uid_of_before(world: World, disk: Path) -> None:
    world.run(seeds=[0])
    first, ballast = world.uid, fill(disk)
    with pytest.raises(RunFolderFull):
        world.run(seeds=[0])
    assert world.uid == first
    assert not list(world.place.glob("*.partial"))
    ballast.unlink()


def test_a_folder_that_cannot_be_made_is_told_in_one_line(world: World) -> None:
    world.runs.mkdir()
    world.place.touch()
    with pytest.raises(RunFolderFull, match=r"runs/e cannot be written: File exists; put this right"):
        world.run()


# Failures.


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (WorkerLost("learner-0", "apply", "it died"), "FAILED"),
        (NO_ROOM, "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (ZeroDivisionError("a bug"), "FAILED"),
    ],
)
def test_a_failure_still_leaves_table_and_figure(world: World, failure: BaseException, status: str) -> None:
    world.fates[("decay", 0)] = raising(failure)
    with pytest.raises(type(failure)) as raised:
        world.run()
    assert raised.value is failure
    assert world.trained == [("baseline", 0), ("decay", 0)]
    assert "baseline" in world.screen.getvalue()
    assert world.store.artifacts == {world.uid: world.drawn()}
    assert world.store.ends == [status]
    assert world.warnings == []
    assert not is_locked(world.place)


def spoil_figure(world: World) -> str:
    (world.place / FIGURE).mkdir(parents=True)
    return f"{world.place / FIGURE}: expected a figure that can be written (Is a directory)"


def spoil_metrics(world: World) -> str:
    """Of a run that was over when the other failed."""
    path = world.place / "baseline" / "seed-0" / METRICS
    failing = world.fates[("decay", 0)]

    def fate(folder: RunFolder) -> None:
        path.write_text('{"step": "two"}\n')
        failing(folder)

    world.fates[("decay", 0)] = fate
    return f"{path}: line 1: step: got 'two', expected a step number, 0 or more"


@pytest.mark.parametrize("spoil", [spoil_figure, spoil_metrics])
@pytest.mark.parametrize(("failure", "status"), [(NO_ROOM, "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_report_that_cannot_be_made_hides_no_failure(
    world: World, failure: BaseException, status: str, spoil: Callable[[World], str]
) -> None:
    world.fates[("decay", 0)] = raising(failure)
    problem = spoil(world)
    with pytest.raises(type(failure)) as raised:
        world.run()
    assert raised.value is failure
    assert world.warnings == [f"warning: no table or no figure of what was recorded: {problem}"]
    assert world.store.ends == [status]
    assert world.store.artifacts == {}


def test_a_report_that_cannot_be_made_of_runs_that_are_done_is_an_error(world: World) -> None:
    problem = spoil_figure(world)
    with pytest.raises(ConfigError) as raised:
        world.run()
    assert str(raised.value) == problem
    assert len(world.trained) == 4
    assert world.store.ends == ["FINISHED"]
    assert world.warnings == []
    shutil.rmtree(world.place / FIGURE)
    world.run(resume=True)
    assert len(world.passed_over) == 4
    assert (world.place / FIGURE).exists()


def test_a_disk_that_fills_up_under_a_run_is_what_is_told(world: World, disk: Path) -> None:
    def fate(folder: RunFolder) -> None:
        fill(disk)
        for step in range(1, 100):
            folder.write_step(step, {f"area/metric-{number}": number / 7 for number in range(200)})

    world.fates[("decay", 0)] = fate
    with pytest.raises(RunFolderFull, match=rf"decay/seed-0/{METRICS} cannot be written: No space left on device"):
        world.run()
    figure = world.place / FIGURE
    assert world.warnings == [
        "warning: no table or no figure of what was recorded: "
        f"{figure}: expected a figure that can be written (No space left on device)"
    ]
    assert world.store.ends == ["FAILED"]


class FullScreen(StringIO):
    """Output into a file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_screen_that_takes_nothing_hides_no_failure_either(world: World) -> None:
    world.console = Console(file=FullScreen(), width=120)
    world.fates[("baseline", 0)] = raising(NO_ROOM)
    with pytest.raises(CheckpointFailed):
        world.run()
    assert world.store.ends == ["FAILED"]


# One at a time.


@pytest.mark.parametrize("resume", [True, False])
def test_a_comparison_in_use_is_left_alone(world: World, resume: bool) -> None:
    world.run(seeds=[0])
    world.specs, world.store = [], FakeStore()
    with run_lock(world.place):
        before = everything(world.runs)
        with pytest.raises(RunInUse, match=rf"runs/e: is in use by process {os.getpid()} on host "):
            world.run(resume=resume, seeds=[0])
        assert everything(world.runs) == before
    assert (world.specs, world.store.cards, world.store.ends) == ([], {}, [])


def test_a_comparison_is_in_use_from_the_first_run_to_the_figure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    held = list[bool]()
    world.fates = {run: lambda folder: held.append(is_locked(world.place)) for run in [("baseline", 0), ("decay", 0)]}
    log_artifact, end_run = world.store.log_artifact, world.store.end_run

    def logged(run_id: str, path: Path) -> None:
        held.append(is_locked(world.place))
        log_artifact(run_id, path)

    def ended(run_id: str, status: str) -> None:
        held.append(is_locked(world.place))
        end_run(run_id, status)

    monkeypatch.setattr(world.store, "log_artifact", logged)
    monkeypatch.setattr(world.store, "end_run", ended)
    world.run(seeds=[0])
    assert held == (2 * STEPS + 3) * [True]
    assert not is_locked(world.place)


def test_comparisons_of_other_names_go_on_side_by_side(world: World) -> None:
    (world.runs / "other").mkdir(parents=True)
    with run_lock(world.runs / "other"):
        world.run(seeds=[0])
    assert world.store.ends == ["FINISHED"]


def test_a_run_of_the_comparison_that_somebody_else_is_at_work_on_ends_it(world: World) -> None:
    run = world.place / "decay" / "seed-0"
    run.mkdir(parents=True)
    with run_lock(run), pytest.raises(RunInUse, match=r"runs/e/decay/seed-0: is in use by process"):
        world.run()
    assert world.trained == [("baseline", 0)]
    assert world.store.ends == ["FAILED"]
    assert (world.place / FIGURE).exists()
