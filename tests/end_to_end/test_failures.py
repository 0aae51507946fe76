"""One case of each kind of failure on a real run: it ends, and its metrics are those of the undisturbed run.

All moments of a step, random moments and long outages: `test_failures_long.py`.
"""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from disturbed_run import RUN, deterministic, differences, rows, run, steps_at_mlflow, write_file
from stand_in_run import random_strikes, stand_in_run

from orchestrator.checkpoints.writer import CheckpointFailed
from orchestrator.run.folder import RunFolderFull

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = list(range(8))
STAND_IN_STEPS = 60


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a rollout worker and 2 learner ranks that nothing has happened to."""
    folder = write_file(tmp_path_factory.mktemp("undisturbed"), engines=1)
    ended = run(folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def moved(folder: Path, place: Path) -> Path:
    """A copy of a folder with a run in it."""
    return Path(shutil.copytree(folder, place / "moved"))


def test_workers_killed_and_stopped_are_replaced_and_nothing_changes(undisturbed: Path, tmp_path: Path) -> None:
    folder = write_file(tmp_path, engines=1)
    ended = run(
        folder,
        faults="kill rollout 0 at step 2; kill learner 1 at step 4 in gradients; kill scheduler at step 5 in decide;"
        " stop rollout 0 at step 6 in publish",
    )
    assert ended.returncode == 0, ended.stderr
    log = (folder / RUN / "log.txt").read_text()
    for lost in (
        "rollout-0 was lost in generate",
        "learner-1 was lost in compute_gradients",
        "scheduler-0 was lost in",
    ):
        assert lost in log
    assert "rollout-0 was lost in publish: no sign of life for 8 s" in log
    assert "goes on" not in ended.stdout and "Traceback" not in ended.stdout + ended.stderr
    assert differences(rows(undisturbed), rows(folder)) == []
    assert steps_at_mlflow(folder) == [STEPS]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose driver was killed in its last step."""
    folder = write_file(tmp_path_factory.mktemp("killed"), engines=1)
    assert run(folder, faults="kill driver at step 7 in gradients").returncode < 0
    return folder


def test_a_killed_driver_goes_on_from_the_checkpoint_before_a_damaged_one(
    undisturbed: Path, killed: Path, tmp_path: Path
) -> None:
    folder = moved(killed, tmp_path)
    newest = folder / RUN / "checkpoints" / "step-000006"
    damaged = newest / "learner" / "__1_0.distcp"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    ended = run(folder, "--resume")
    assert ended.returncode == 0, ended.stderr
    assert f"checkpoint {newest} is not used: learner/__1_0.distcp" in ended.stdout
    assert "goes on with step 3" in ended.stdout
    assert differences(rows(undisturbed), rows(folder)) == []
    assert steps_at_mlflow(folder) == [STEPS]
    status = json.loads((folder / RUN / "run.json").read_text())
    assert (status["status"], status["resumes"], status["last_step"]) == ("finished", 1, 7)


def test_a_run_goes_on_with_more_steps_and_another_number_of_learners(
    undisturbed: Path, killed: Path, tmp_path: Path
) -> None:
    folder = moved(killed, tmp_path)
    ended = run(folder, "--resume", "--set", "steps=9", "--set", "learner.workers=1")
    assert ended.returncode == 0, ended.stderr
    assert "goes on with step 6" in ended.stdout
    of_one, of_two = (deterministic(rows(place)[6]) for place in (folder, undisturbed))
    assert of_one == {key: pytest.approx(value, rel=1e-4, abs=1e-6) for key, value in of_two.items()}
    assert [row["step"] for row in rows(folder)] == list(range(9))
    assert steps_at_mlflow(folder) == [list(range(9))]


def test_another_learning_rate_is_refused_and_a_finished_run_has_nothing_to_do(undisturbed: Path) -> None:
    refused = run(undisturbed, "--resume", "--set", "scheduler.lr=2e-4")
    assert refused.returncode == 2
    assert refused.stderr.strip() == (
        "evenkeel: tiny.yaml: scheduler.lr: got 0.0002, expected the value of the run that is resumed: 0.0001"
    )
    again = run(undisturbed, "--resume")
    assert again.returncode == 0, again.stderr
    assert "is over already, with 8 steps" in again.stdout
    assert steps_at_mlflow(undisturbed) == [STEPS]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of stand-ins for engine and model; the real ones have their turn in the long tests, too."""
    folder = tmp_path_factory.mktemp("quiet")
    stand_in_run(folder, STAND_IN_STEPS)
    return folder


def test_random_faults_change_nothing(quiet: Path, tmp_path: Path) -> None:
    stand_in_run(tmp_path, STAND_IN_STEPS, random_strikes(seed=3, steps=STAND_IN_STEPS, number=6))
    assert " was lost in " in (tmp_path / RUN / "log.txt").read_text()
    assert differences(rows(quiet), rows(tmp_path)) == []
    assert steps_at_mlflow(tmp_path) == [list(range(STAND_IN_STEPS))]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with a disk of 16 MiB for itself."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, steps: int) -> None:
    """Leave nothing free on the disk as soon as the run on it has recorded that many steps."""
    metrics = disk / RUN / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < steps:
        time.sleep(0.02)
    with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


def test_a_full_disk_ends_the_run_and_it_goes_on_when_there_is_room(
    quiet: Path, tmp_path: Path, small_disk: Path
) -> None:
    database = tmp_path / "mlflow.db"
    filling = threading.Thread(target=fill, args=(small_disk, 20), daemon=True)
    filling.start()
    with pytest.raises((RunFolderFull, CheckpointFailed), match=r"No space left on device.*go on with --resume"):
        stand_in_run(small_disk, STAND_IN_STEPS, database=database)
    filling.join()
    (small_disk / "filler").unlink()
    assert len(list((small_disk / RUN / "checkpoints").glob("step-*"))) == 2
    stand_in_run(small_disk, STAND_IN_STEPS, database=database, resume=True)
    assert differences(rows(quiet), rows(small_disk)) == []
