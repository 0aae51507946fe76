"""The checkpoints of a run: which one it can go on from, what is named, and what is made when."""

import os
import shutil
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from experiment_files import changed
from rich.console import Console
from safetensors.numpy import save_file

from actors.messages import SavedFile
from cluster.worker import WorkerLost
from orchestrator import disk
from orchestrator.checkpoints.manifest import saved_file
from orchestrator.checkpoints.state import RunState
from orchestrator.checkpoints.store import CheckpointStore
from orchestrator.config import CheckpointConfig, ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.disk import DiskTooSmall
from orchestrator.run.checkpoints import RunCheckpoints, check_room, learner_files
from orchestrator.run.folder import CHECKPOINTS, LOG, METRICS, RunFolder
from orchestrator.run.log import RunLog
from orchestrator.run.metrics_file import MetricsFile
from orchestrator.run.progress import Progress

CONFIG = ExperimentConfig.model_validate(changed({}))
EVERY = CheckpointConfig(every=2, keep=2)


class FakeLearners:
    """Write one file at once; may be lost in either call."""

    def __init__(self) -> None:
        self.folder = Path()
        self.lost_in: str | None = None

    def save(self, folder: str) -> None:
        self._call("save")
        self.folder = Path(folder)
        self.folder.mkdir()
        (self.folder / "__0_0.distcp").write_bytes(b"weights" * 100)

    def written(self) -> Sequence[SavedFile]:
        self._call("written")
        return [saved_file(self.folder.parent, "learner/__0_0.distcp")]

    def _call(self, method: str) -> None:
        if method == self.lost_in:
            raise WorkerLost("learner-0", method, "it died")


class Run:
    """A run's folder with steps in it, its checkpoints, and what is said of them."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.screen = StringIO()
        self.learners = FakeLearners()
        self.places = [0]  # of the metrics file, before each step

    def checkpoints(self, config: CheckpointConfig | None = EVERY) -> RunCheckpoints:
        told = RunLog(Progress(Console(file=self.screen), "e", 10), self.folder.log)
        return RunCheckpoints(config, self.folder, told)

    def state(self, step: int) -> RunState:
        return RunState(
            step=step,
            weight_version=step,
            cursor=4 * step,
            scheduler={"policy": {}},
            stability={"signs": {}, "verdict": None},
            mlflow_run_id=None,
            metrics_bytes=self.places[step],
            learner_ranks=1,
        )

    def train(self, last: int, config: CheckpointConfig | None = EVERY) -> None:
        """Steps up to `last`, with checkpoints when they are due."""
        checkpoints = self.checkpoints(config)
        with checkpoints.written_by(self.learners):
            for step in range(len(self.places) - 1, last + 1):
                self.folder.write_step(step, {"reward/mean": step / 8})
                self.places.append(self.folder.sync())
                if checkpoints.due(step, last):
                    checkpoints.begin(self.state(step + 1))

    @property
    def said(self) -> list[str]:
        return self.screen.getvalue().splitlines()

    @property
    def there(self) -> list[str]:
        return sorted(path.name for path in (self.folder.path / CHECKPOINTS).iterdir())


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with RunFolder.create(tmp_path / "run", CONFIG, seed=0) as folder:
        yield Run(folder)


def test_a_run_goes_on_from_its_newest_checkpoint(run: Run) -> None:
    assert run.checkpoints().newest() is None
    run.train(6)
    found = run.checkpoints().newest()
    assert found is not None
    assert found.state == run.state(7)
    assert found.path == run.folder.path / CHECKPOINTS / "step-000007"
    assert found.config == run.folder.config
    assert run.there == ["step-000006", "step-000007"]  # every second one and the last; two are kept
    assert run.said == []


def test_those_that_are_made_stand_in_the_log_and_not_on_the_screen(run: Run) -> None:
    run.train(3)
    lines = [line for line in (run.folder.path / LOG).read_text().splitlines() if "checkpoint" in line]
    assert [line.split("INFO ")[1].split(" s in")[0].rpartition(", ")[0] for line in lines] == [
        f"checkpoint before step {step}: {run.folder.path}/checkpoints/step-{step:06d}" for step in (2, 4)
    ]
    assert run.said == []


def test_a_damaged_one_is_named_and_the_one_before_it_is_used(run: Run) -> None:
    run.train(3)
    newest = run.folder.path / CHECKPOINTS / "step-000004"
    (newest / "learner" / "__0_0.distcp").write_bytes(b"WEIGHTS" * 100)
    found = run.checkpoints().newest()
    assert found is not None and found.state.step == 2
    told = f"checkpoint {newest} is not used: learner/__0_0.distcp: its content has changed (sha256)"
    assert run.said == [f"e: warning: {told}"]
    assert f"WARNING {told}" in (run.folder.path / LOG).read_text()


@pytest.mark.parametrize("left", [3, 2])
def test_one_whose_steps_the_metrics_file_lacks_is_named_and_an_earlier_one_is_used(run: Run, left: int) -> None:
    run.train(3)
    os.truncate(run.folder.path / METRICS, run.places[left])
    found = run.checkpoints().newest()
    assert found is not None and found.state == run.state(2)
    newest = run.folder.path / CHECKPOINTS / "step-000004"
    metrics = run.folder.path / METRICS
    assert run.said == [f"e: warning: checkpoint {newest} is not used: {metrics} does not have all steps before it"]


def test_all_of_them_are_named_when_none_can_be_used(run: Run) -> None:
    run.train(3)
    shutil.rmtree(run.folder.path / CHECKPOINTS / "step-000002" / "learner")
    os.truncate(run.folder.path / METRICS, 0)
    assert run.checkpoints().newest() is None
    assert [line.split(" ")[3].rpartition("/")[2] for line in run.said] == ["step-000004", "step-000002"]


def test_one_that_belongs_to_other_metrics_is_not_used(run: Run) -> None:
    run.train(3)
    with MetricsFile(run.folder.path / METRICS) as metrics:
        metrics.rewind(0)
        for step in range(4):  # shorter lines; as many steps
            metrics.write(step, {})
    assert run.checkpoints().newest() is None
    assert len(run.said) == 2


def test_without_a_block_none_are_made_and_those_that_are_there_stay_and_can_be_gone_on_from(run: Run) -> None:
    run.train(3)
    run.train(9, config=None)
    assert run.there == ["step-000002", "step-000004"]
    checkpoints = run.checkpoints(None)
    with checkpoints.written_by(run.learners):
        assert not any(checkpoints.due(step, 9) for step in range(10))
        checkpoints.begin(run.state(4))
        checkpoints.check()
        checkpoints.finish()
        checkpoints.abandon()
    found = checkpoints.newest()
    assert found is not None and found.state.step == 4


def test_outside_of_the_with_block_there_is_nothing_to_wait_for(run: Run) -> None:
    checkpoints = run.checkpoints()
    checkpoints.begin(run.state(0))
    checkpoints.check()
    checkpoints.finish()
    checkpoints.abandon()
    assert not (run.folder.path / CHECKPOINTS).exists()


@pytest.mark.parametrize("lost_in", ["save", "written"])
def test_a_learner_that_is_lost_on_the_way_is_told_and_leaves_the_ones_before(run: Run, lost_in: str) -> None:
    run.train(3)
    checkpoints = run.checkpoints()
    with checkpoints.written_by(run.learners):
        run.learners.lost_in = lost_in
        with pytest.raises(WorkerLost, match=f"learner-0 was lost in {lost_in}"):
            checkpoints.begin(run.state(4))
            checkpoints.finish()
        checkpoints.abandon()
        found = checkpoints.newest()
        assert found is not None and found.state.step == 4
        run.learners.lost_in = None
        checkpoints.begin(run.state(3))
    assert run.there == ["step-000002", "step-000003"]  # what came after it is of a future that is no more


def test_a_folder_that_the_learners_find_from_wherever_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with RunFolder.create(Path("runs/e"), CONFIG, seed=0) as folder:
        run = Run(folder)
        run.train(1)
        assert run.learners.folder.parent.parent == tmp_path / "runs" / "e" / CHECKPOINTS
        found = learner_files(run.checkpoints().newest())
    assert found == str(tmp_path / "runs" / "e" / CHECKPOINTS / "step-000002" / "learner")
    assert learner_files(None) is None


@pytest.mark.parametrize(("there", "needed"), [(0, 3), (1, 2), (2, 1)])
def test_room_is_needed_for_all_that_are_kept_and_one_more_without_those_that_are_there(
    run: Run, monkeypatch: pytest.MonkeyPatch, there: int, needed: int
) -> None:
    run.train(2 * there - 1)
    model = run.folder.path / "a model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    save_file({"weight": np.zeros(1000, np.float32)}, model / "model.safetensors")
    each = disk.checkpoint_bytes(str(model))
    assert each == 12_000
    monkeypatch.setattr(disk, "free_bytes", lambda folder: needed * each)
    path = run.folder.path
    check_room(path, EVERY, str(model), resume=True)
    monkeypatch.setattr(disk, "free_bytes", lambda folder: needed * each - 1)
    with pytest.raises(DiskTooSmall) as raised:
        check_room(path, EVERY, str(model), resume=True)
    assert raised.value.needed == needed * each
    check_room(path, None, str(model), resume=True)
    check_room(path, EVERY, "a model of unknown size", resume=True)
    check_room(path, CheckpointConfig(storage="s3://bucket"), str(model), resume=True)
    with pytest.raises(DiskTooSmall) as elsewhere:
        check_room(path, CheckpointConfig(storage="/"), str(model), resume=False)
    assert elsewhere.value.folder == Path("/")
    if there:
        monkeypatch.setattr(disk, "free_bytes", lambda folder: 2 * each)
        with pytest.raises(DiskTooSmall):  # a fresh run: what is there is moved aside, and stays
            check_room(path, EVERY, str(model), resume=False)


def test_a_listing_sees_what_a_run_has_made(run: Run) -> None:
    run.train(3)
    sizes = CheckpointStore(run.folder.path / CHECKPOINTS, keep=None).sizes()
    assert [size.step for size in sizes] == [2, 4]


def test_those_of_a_run_with_a_storage_are_there_and_nowhere_else(run: Run, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    stored = CheckpointConfig(every=2, keep=2, storage=str(mount))
    run.train(3, stored)
    found = run.checkpoints(stored).newest()
    assert found is not None and found.state == run.state(4)
    assert found.path == mount.joinpath(*tmp_path.parts[-2:], "run", run.folder.status.uid, "step-000004")
    assert run.checkpoints(None).newest() == found
    assert not (run.folder.path / CHECKPOINTS).exists()
    with pytest.raises(ConfigError, match="its checkpoints are in"):
        run.checkpoints(EVERY)
