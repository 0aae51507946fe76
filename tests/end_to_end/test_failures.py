"""One case of each kind of failure on a real run: it ends, and its metrics are those of the undisturbed run.

All moments of a step, random moments and long outages: `test_failures_long.py`.
"""

import json
import shutil
from pathlib import Path

import pytest
from disturbed_run import RUN, differences, rows, run, steps_at_mlflow, write_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = list(range(8))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of 2 rollout workers and 2 learner ranks that nothing has happened to."""
    folder = write_file(tmp_path_factory.mktemp("undisturbed"))
    ended = run(folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def test_workers_killed_and_stopped_are_replaced_and_nothing_changes(undisturbed: Path, tmp_path: Path) -> None:
    folder = write_file(tmp_path)
    ended = run(
        folder,
        faults="kill rollout 0 at step 2; kill learner 1 at step 4 in gradients; kill scheduler at step 5 in decide;"
        " stop rollout 1 at step 6 in publish",
    )
    assert ended.returncode == 0, ended.stderr
    log = (folder / RUN / "log.txt").read_text()
    for lost in ("rollout-0 was lost in generate", "learner-1 was lost in compute_gradients", "scheduler-0 was lost in"):
        assert lost in log
    assert "rollout-1 was lost in publish: no sign of life for 8 s" in log
    assert "goes on" not in ended.stdout and "Traceback" not in ended.stdout + ended.stderr
    assert differences(rows(undisturbed), rows(folder)) == []
    assert steps_at_mlflow(folder) == [STEPS]


def test_a_killed_driver_goes_on_from_the_checkpoint_before_a_damaged_one(undisturbed: Path, tmp_path: Path) -> None:
    folder = write_file(tmp_path)
    assert run(folder, faults="kill driver at step 7 in gradients").returncode < 0
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


def test_a_run_goes_on_with_more_steps_and_another_number_of_learners(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "longer"
    shutil.copytree(undisturbed, folder)
    ended = run(folder, "--resume", "--set", "steps=9", "--set", "learner.workers=1")
    assert ended.returncode == 0, ended.stderr
    assert "goes on with step 8" in ended.stdout
    with_one, with_two = rows(folder), tmp_path / "same"
    shutil.copytree(undisturbed, with_two)
    assert run(with_two, "--resume", "--set", "steps=9").returncode == 0
    assert [row["step"] for row in with_one] == list(range(9))
    of_one, of_two = with_one[8], rows(with_two)[8]
    compared = [key for key in of_two if not key.startswith(("time/", "throughput/"))]
    assert {key: of_one[key] for key in compared} == {key: pytest.approx(of_two[key], rel=1e-4, abs=1e-6) for key in compared}


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
