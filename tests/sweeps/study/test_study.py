"""The driver of a study: lanes, failures of one trial and of all, interruption and going on."""

import errno
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.worker import WorkerLost
from orchestrator.config_errors import ConfigError
from orchestrator.disk import DiskTooSmall
from orchestrator.run.folder import RunFolderFull
from orchestrator.run.lock import RunInUse, run_lock
from orchestrator.run_spec import RunSpec
from sweeps.study import study
from sweeps.study.record import StudyRecord

ALONE: dict[str, Any] = {"sharing": {"enabled": False}, "seeds": [0], "trials": 4}
PATIENT_S = 60.0


@pytest.fixture(autouse=True)
def _nobody_is_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "BUSY_S", 0.02)


def failing_at(arm: str, play: Callable[..., bool], error: BaseException) -> Callable[[RunSpec], None]:
    """Runs of which that of one arm fails after two steps."""

    def run(spec: RunSpec) -> None:
        play(spec, steps=2 if spec.arm == arm else 3)
        if spec.arm == arm:
            raise error

    return run


def test_all_trials_are_run_and_written_down(stage: Any, play: Any, sweeps: Any) -> None:
    acted = stage(ALONE, play)
    record = acted.study().run()
    assert [trial.state for trial in record.trials] == ["complete"] * 4
    for trial in record.trials:
        assert trial.value == pytest.approx(trial.params["scheduler.ratio"])
    assert record == StudyRecord.read(sweeps.folder)
    assert (record.accounting.executed, record.accounting.naive) == (12, 12)
    assert acted.screen.getvalue().count("\n") == 4
    assert f"trial-002: value {record.trials[2].value:.4g}  (scheduler.ratio " in acted.screen.getvalue()


def test_the_record_is_written_after_every_trial(stage: Any, play: Any, sweeps: Any) -> None:
    seen: list[list[str]] = []

    def run(spec: RunSpec) -> None:
        there = (sweeps.folder / "study.json").exists()
        seen.append([trial.state for trial in StudyRecord.read(sweeps.folder).trials] if there else [])
        play(spec)

    stage(ALONE, run).study().run()
    assert seen == [["complete"] * done for done in range(4)]


@pytest.mark.parametrize("sharing", ["auto", False])
def test_the_baselines_come_first_where_steps_are_shared(stage: Any, play: Any, sharing: Any) -> None:
    begun: list[tuple[str, int, str]] = []

    def run(spec: RunSpec) -> None:
        begun.append((spec.arm, spec.seed, spec.config.scheduler.kind))
        play(spec)

    stage({"sharing": {"enabled": sharing}, "seeds": [0, 3], "trials": 1}, run).study().run()
    baselines = [("baseline", seed, "constant") for seed in (0, 3)]
    trials = [("trial-000", seed, "length_triggered") for seed in (0, 3)]
    assert begun == (baselines if sharing else []) + trials


def test_a_baseline_that_another_driver_has_is_waited_for(stage: Any, play: Any) -> None:
    tries = Counter[str]()

    def run(spec: RunSpec) -> None:
        tries[spec.arm] += 1
        if tries["baseline"] < 3:
            raise RunInUse(spec.folder, "process 1")
        play(spec)

    record = stage({"seeds": [0], "trials": 1}, run).study().run()
    assert tries == {"baseline": 3, "trial-000": 1}
    assert record.trials[0].state == "complete"


def test_a_baseline_that_fails_ends_the_study_before_any_trial(stage: Any, play: Any) -> None:
    acted = stage({"seeds": [0], "trials": 2}, failing_at("baseline", play, WorkerLost("learner 0", "step", "killed")))
    with pytest.raises(WorkerLost, match="learner 0"):
        acted.study().run()
    assert acted.states() == ["waiting"] * 2


@pytest.mark.parametrize(
    ("error", "reason", "has_traceback"),
    [
        (
            WorkerLost("learner 0", "step", "killed\nby a signal"),
            "WorkerLost: learner 0 was lost in step: killed by a signal",
            False,
        ),
        (RuntimeError("shapes differ"), "RuntimeError: shapes differ", True),
        (KeyError("reward"), "KeyError: 'reward'", True),
        (
            ConnectionResetError(errno.ECONNRESET, "reset"),
            f"ConnectionResetError: [Errno {errno.ECONNRESET}] reset",
            False,
        ),
    ],
)
def test_a_trial_that_fails_is_a_failed_trial_and_the_others_go_on(
    stage: Any, play: Any, error: Exception, reason: str, has_traceback: bool
) -> None:
    acted = stage(ALONE, failing_at("trial-001", play, error))
    record = acted.study().run()
    assert [trial.state for trial in record.trials] == ["complete", "failed", "complete", "complete"]
    assert record.trials[1].reason == reason
    assert (record.trials[1].seeds["0"].executed, record.accounting.executed) == (2, 11)  # it has cost them
    assert f"trial-001: fail: {reason}  (" in acted.screen.getvalue()
    assert (acted.grounds.runs / "ratios" / "trial-001" / "traceback.txt").exists() is has_traceback


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DiskTooSmall(Path("runs"), 2**30, 2**20), DiskTooSmall),
        (RunFolderFull(Path("runs"), OSError(errno.ENOSPC, "No space left")), RunFolderFull),
        (ConfigError("e.yaml", "steps", 1, "more"), ConfigError),
        (OSError(errno.ENOSPC, "No space left on device"), RunFolderFull),
    ],
)
def test_what_every_trial_would_meet_ends_the_study(
    stage: Any, play: Any, error: Exception, told: type[Exception], parallel: int
) -> None:
    acted = stage({**ALONE, "parallel": parallel}, failing_at("trial-001", play, error))
    with pytest.raises(told):
        acted.study().run()
    assert acted.states()[1] == "running"
    assert "fail" not in acted.states()
    record = stage({**ALONE, "parallel": parallel}, play).study().run()
    assert [trial.state for trial in record.trials] == ["complete"] * 4


def test_lanes_run_different_trials_at_the_same_time(stage: Any, play: Any) -> None:
    together, begun = threading.Barrier(3), Counter[str]()

    def run(spec: RunSpec) -> None:
        begun[spec.arm] += 1
        together.wait(PATIENT_S)
        play(spec)

    record = stage({**ALONE, "parallel": 3, "trials": 6}, run).study().run()
    assert begun == {f"trial-{number:03d}": 1 for number in range(6)}
    assert [trial.state for trial in record.trials] == ["complete"] * 6


def test_an_interrupt_ends_all_lanes_and_leaves_their_trials_to_go_on_with(stage: Any, play: Any) -> None:
    changes = {**ALONE, "parallel": 2, "trials": 5}
    together, ended = threading.Barrier(2), list[str]()

    def run_until_interrupted(spec: RunSpec) -> None:
        play(spec, steps=1)
        if spec.arm in {"trial-000", "trial-001"}:
            return
        if together.wait(PATIENT_S) == 0:
            os.kill(os.getpid(), signal.SIGINT)
        try:
            while True:
                play(spec, steps=2)
        finally:
            time.sleep(0.2)
            ended.append(spec.arm)

    acted = stage(changes, run_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        acted.study().run()
    assert sorted(ended) == ["trial-002", "trial-003"]  # it has waited for them
    states = acted.states()
    assert Counter(states) == {"complete": 2, "running": 2, "waiting": 1}
    params = {trial.number: trial.params for trial in acted.store.trials() if trial.params}
    again = stage(changes, play)
    record = again.study().run()
    assert [trial.state for trial in record.trials] == ["complete"] * 5
    assert all(record.trials[number].params == known for number, known in params.items())
    assert again.screen.getvalue().index("trial-004") < again.screen.getvalue().index("trial-003")  # waiting ones first


def test_workers_that_are_gone_with_the_study_fail_no_trial(stage: Any, play: Any) -> None:
    def run(spec: RunSpec) -> None:
        acted.interrupted.set()
        raise WorkerLost("learner 0", "step", "killed with the rest")

    acted = stage(ALONE, run)
    with pytest.raises(WorkerLost):
        acted.study().run()
    assert acted.states() == ["running", "waiting", "waiting", "waiting"]


def test_a_trial_that_another_driver_has_is_waited_for_and_taken_over(stage: Any, play: Any, sweeps: Any) -> None:
    (sweeps.folder / "trial-002").mkdir(parents=True)
    acted = stage(ALONE, play)
    with run_lock(sweeps.folder / "trial-002"):
        working = threading.Thread(target=acted.study().run)
        working.start()
        while acted.states() != ["complete", "complete", "waiting", "complete"]:
            working.join(0.02)
        working.join(0.3)
        assert working.is_alive()
    working.join(PATIENT_S)
    assert acted.states() == ["complete"] * 4


def test_a_record_that_cannot_be_written_ends_the_study(stage: Any, play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(record: StudyRecord, folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(StudyRecord, "write", full)
    with pytest.raises(RunFolderFull, match="make room and go on with --resume"):
        stage(ALONE, play).study().run()
