"""A run's folder: nothing overwritten, one process at a time, lines as the steps end, and how the run stands."""

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.run.folder import (
    CONFIG,
    LOG,
    METRICS,
    VERDICT,
    RunFolder,
    move_aside,
    run_path,
    stored_config,
)
from orchestrator.run.lock import RunInUse
from orchestrator.run.metrics_file import Entry
from orchestrator.run.status import STATUS, End, RunStatus
from orchestrator.yaml_files import read_mapping

CONFIG_TREE = {
    "name": "e",
    "model": {"path": "embedded"},
    "task": {"kind": "arithmetic"},
    "rollout": {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": 8},
    "learner": {"correction": {"kind": "geometric_mask"}, "gradient_noise": {"every": None}},
    "scheduler": {"kind": "constant", "lr": 1e-6},
    "shadow": {"watch": {"kind": "signal_triggered", "signal": "eval/held_out/avg@2"}},
    "evaluation": {"every": 5, "samples": 2},
    "stability": {"on_collapse": "stop", "max_mismatch": 0.5},
    "steps": 10,
    "arms": {"a": {}},
}


def recorded(path: Path) -> list[dict[str, float]]:
    """The metrics of a run folder, line by line."""
    return [json.loads(line) for line in (path / METRICS).read_text().splitlines()]


def status_of(path: Path) -> RunStatus:
    status = RunStatus.read(path)
    assert status is not None
    return status


@pytest.fixture
def config() -> ExperimentConfig:
    return ExperimentConfig.model_validate(CONFIG_TREE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return run_path(tmp_path, "e", "decay", 3)


def test_a_run_lives_under_name_arm_and_seed() -> None:
    assert run_path(Path("runs"), "demo", "decay", 3) == Path("runs/demo/decay/seed-3")


def test_the_resolved_config_is_kept_and_can_be_read_again(path: Path, config: ExperimentConfig) -> None:
    with RunFolder.create(path, config, seed=3):
        pass
    stored = read_mapping(path / CONFIG)
    assert "arms" not in stored
    assert stored == stored_config(config, 3)
    assert ExperimentConfig.model_validate(stored) == config.model_copy(update={"arms": {}, "seeds": [3]})


def test_a_verdict_is_one_json_object_and_the_later_one_counts(path: Path, config: ExperimentConfig) -> None:
    with RunFolder.create(path, config, seed=0) as folder:
        assert not (path / VERDICT).exists()
        folder.write_verdict({"collapsed": False})
        folder.write_verdict({"collapsed": True, "step": 7})
    assert json.loads((path / VERDICT).read_text()) == {"collapsed": True, "step": 7}


def test_each_step_is_a_line_on_disk_before_the_next_one(path: Path, config: ExperimentConfig) -> None:
    with RunFolder.create(path, config, seed=0) as folder:
        for step in range(3):
            folder.write_step(step, {"reward/mean": step / 2})
            assert len(recorded(path)) == step + 1
    assert recorded(path) == [{"step": step, "reward/mean": step / 2} for step in range(3)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_an_error_and_leaves_nothing(
    value: float, path: Path, config: ExperimentConfig
) -> None:
    with RunFolder.create(path, config, seed=0) as folder:
        with pytest.raises(ValueError, match="not JSON compliant"):
            folder.write_step(0, {"reward/mean": 0.5, "gradient/norm": value})
        folder.write_step(1, {"reward/mean": 0.5})
    assert recorded(path) == [{"step": 1, "reward/mean": 0.5}]


def test_an_earlier_run_is_moved_aside_and_never_overwritten(path: Path, config: ExperimentConfig) -> None:
    for number in range(3):
        with RunFolder.create(path, config, seed=0) as folder:
            folder.write_step(number, {})
    places = [path.with_name("seed-3.old-1"), path.with_name("seed-3.old-2"), path]
    assert [recorded(place)[0]["step"] for place in places] == [0, 1, 2]
    assert sorted(path.parent.iterdir()) == sorted(places)
    assert "seed-3.old-2" in (path / LOG).read_text()


def test_nothing_is_moved_where_nothing_is(tmp_path: Path) -> None:
    assert move_aside(tmp_path / "no such run") is None
    assert list(tmp_path.iterdir()) == []


def test_steps_written_after_a_cut_off_line_can_be_read(path: Path, config: ExperimentConfig) -> None:
    with RunFolder.create(path, config, seed=0) as folder:
        folder.write_step(0, {})
    with (path / METRICS).open("a") as metrics:
        metrics.write('{"step": 1, "rewa')
    with RunFolder.reopen(path, config, seed=0) as folder:
        folder.write_step(1, {})
        folder.write_step(2, {})
    assert [row["step"] for row in recorded(path)] == [0, 1, 2]


def test_an_exception_that_ends_the_run_is_logged_with_its_traceback(path: Path, config: ExperimentConfig) -> None:
    with pytest.raises(RuntimeError, match="worker lost"), RunFolder.create(path, config, seed=0):
        raise RuntimeError("worker lost")
    log = (path / LOG).read_text()
    assert "the run ended early" in log
    assert "RuntimeError: worker lost" in log


def test_log_lines_reach_their_own_run_only_and_none_after_its_end(
    tmp_path: Path, config: ExperimentConfig, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = (RunFolder.create(tmp_path / name, config, seed=0) for name in ("one", "other"))
    with other, one:
        one.log.info("hello")
    one.log.log(logging.INFO, "too late")
    assert (tmp_path / "one" / LOG).read_text().count("hello") == 1
    assert "too late" not in (tmp_path / "one" / LOG).read_text()
    assert (tmp_path / "other" / LOG).read_text() == ""
    assert "hello" not in caplog.text


def test_a_run_that_goes_on_keeps_its_identity_and_all_that_it_has_recorded(
    path: Path, config: ExperimentConfig
) -> None:
    with RunFolder.create(path, config, seed=0) as folder:
        folder.write_step(0, {"reward/mean": 0.5})
        folder.note_mlflow_run("0c5b1c")
    first = status_of(path)
    for resumes in (1, 2):
        with RunFolder.reopen(path, config, seed=0) as folder:
            assert (folder.status.uid, folder.status.resumes) == (first.uid, resumes)
            assert (folder.status.status, folder.status.ended) == ("running", None)
            folder.write_step(resumes, {"reward/mean": 0.5})
    second = status_of(path)
    assert (second.started, second.mlflow_run_id, second.last_step) == (first.started, "0c5b1c", 2)
    assert [row["step"] for row in recorded(path)] == [0, 1, 2]
    assert not path.with_name("seed-3.old-1").exists()


def test_a_run_that_begins_anew_is_another_one(path: Path, config: ExperimentConfig) -> None:
    uids = set()
    for _ in range(2):
        with RunFolder.create(path, config, seed=0) as folder:
            assert folder.status.resumes == 0
            uids.add(folder.status.uid)
    assert len(uids) == 2


def test_there_need_be_nothing_to_go_on_with(path: Path, config: ExperimentConfig) -> None:
    with RunFolder.reopen(path, config, seed=0) as folder:
        assert (folder.status.resumes, folder.is_over) == (0, False)
        assert folder.write_step(0, {}) is Entry.NEW


def test_a_folder_without_a_state_goes_on_as_a_run_of_its_own(path: Path, config: ExperimentConfig) -> None:
    path.mkdir(parents=True)
    (path / METRICS).write_text('{"step": 0}\n')
    with RunFolder.reopen(path, config, seed=0) as folder:
        assert (folder.status.resumes, folder.is_over) == (0, False)
        folder.metrics.rewind(0)
        assert folder.write_step(0, {}) is Entry.SAME


def test_the_config_of_today_replaces_the_one_of_before(path: Path, config: ExperimentConfig) -> None:
    with RunFolder.create(path, config, seed=0):
        pass
    with RunFolder.reopen(path, config.model_copy(update={"steps": 99}), seed=0) as folder:
        assert read_mapping(path / CONFIG)["steps"] == folder.config["steps"] == 99


OTHER_PROCESS = """
import json, os, sys
from pathlib import Path
from orchestrator.config import ExperimentConfig
from orchestrator.run.folder import RunFolder
opened, path, config = sys.argv[1], Path(sys.argv[2]), ExperimentConfig.model_validate(json.loads(sys.argv[3]))
with getattr(RunFolder, opened)(path, config, seed=0) as folder:
    folder.write_step(0, {})
    os.kill(os.getpid(), 9)
"""


def in_another_process(opened: Literal["create", "reopen"], path: Path) -> subprocess.CompletedProcess[str]:
    """Opens the folder, writes step 0 and is killed, if it gets so far."""
    return subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, opened, str(path), json.dumps(CONFIG_TREE)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )


@pytest.mark.parametrize("opened", ["create", "reopen"])
def test_no_other_process_gets_at_a_run_that_goes_on(
    path: Path, config: ExperimentConfig, opened: Literal["create", "reopen"]
) -> None:
    with RunFolder.create(path, config, seed=0) as folder:
        folder.write_step(0, {})
        before = status_of(path)
        other = in_another_process(opened, path)
        assert f"{path}: is in use by process {os.getpid()} on host " in other.stderr
        assert other.returncode == 1
        assert status_of(path) == before
        folder.write_step(1, {})
    assert [row["step"] for row in recorded(path)] == [0, 1]
    assert list(path.parent.iterdir()) == [path]


def test_not_even_this_process_opens_a_folder_twice(path: Path, config: ExperimentConfig) -> None:
    with RunFolder.create(path, config, seed=0):
        with pytest.raises(RunInUse):
            RunFolder.create(path, config, seed=0)
        with pytest.raises(RunInUse), RunFolder.reopen(path, config, seed=0):
            pass
    with RunFolder.reopen(path, config, seed=0):
        pass


def test_a_process_that_is_killed_leaves_a_run_that_goes_on_as_the_same(path: Path, config: ExperimentConfig) -> None:
    assert in_another_process("create", path).returncode == -9
    left = status_of(path)
    assert (left.status, left.ended) == ("running", None)
    with RunFolder.reopen(path, config, seed=0) as folder:
        assert not folder.is_over
        assert (folder.status.uid, folder.status.resumes, folder.status.pid) == (left.uid, 1, os.getpid())
        folder.metrics.rewind(0)
        assert folder.write_step(0, {}) is Entry.SAME


def test_a_state_that_cannot_be_read_is_told_and_nothing_is_left_open(path: Path, config: ExperimentConfig) -> None:
    path.mkdir(parents=True)
    (path / STATUS).write_text("{}")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"run.json: status: expected"), RunFolder.reopen(path, config, seed=0):
            pass
    (path / STATUS).unlink()
    with RunFolder.reopen(path, config, seed=0) as folder:
        assert len(folder.log.handlers) == 1


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (None, "finished", None),
        (
            RuntimeError("learner-0 was lost in apply:\n  it died"),
            "failed",
            "RuntimeError: learner-0 was lost in apply: it",
        ),
        (KeyboardInterrupt(), "interrupted", None),
        (SystemExit(3), "failed", "SystemExit: 3"),
    ],
    ids=["finished", "failed", "interrupted", "ended"],
)
def test_how_the_with_block_ended_stands_in_the_state(
    path: Path, config: ExperimentConfig, error: BaseException | None, status: str, detail: str | None
) -> None:
    try:
        with RunFolder.create(path, config, seed=0) as folder:
            assert status_of(path) == folder.status
            for step in range(3):
                folder.write_step(step, {})
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error
    found = status_of(path)
    assert (found.status, found.last_step) == (status, 2)
    assert found.detail == detail if detail is None else (found.detail or "").startswith(detail)
    assert found.ended is not None


@pytest.mark.parametrize("end", ["collapsed", "stopped"])
def test_an_early_end_is_an_end_of_its_own(path: Path, config: ExperimentConfig, end: End) -> None:
    with RunFolder.create(path, config, seed=0) as folder:
        folder.write_step(0, {})
        folder.end = end
    assert (status_of(path).status, status_of(path).last_step) == (end, 0)


def test_a_run_that_never_recorded_a_step_has_no_last_one(path: Path, config: ExperimentConfig) -> None:
    with pytest.raises(ValueError, match="not JSON"), RunFolder.create(path, config, seed=0) as folder:
        folder.write_step(0, {"reward/mean": math.nan})
    assert status_of(path).last_step is None


@pytest.mark.parametrize(
    ("end", "steps_done", "over"),
    [
        ("finished", 10, True),
        ("finished", 12, True),  # under a config of more steps
        ("finished", 9, False),  # of fewer: the run goes on
        ("collapsed", 4, True),
        ("stopped", 4, True),
        ("failed", 10, False),  # after its last step, such as in the export
        ("interrupted", 10, False),
    ],
)
def test_a_run_is_over_when_it_has_all_steps_of_the_config_or_was_ended_early(
    path: Path, config: ExperimentConfig, end: End, steps_done: int, over: bool
) -> None:
    assert config.steps == 10
    with RunFolder.create(path, config, seed=0) as folder:
        for step in range(steps_done):
            folder.write_step(step, {})
    status_of(path).end(end).write(path)
    with RunFolder.reopen(path, config, seed=0) as folder:
        assert folder.is_over is over
    after = status_of(path)
    assert (after.status, after.last_step) == (end if over else "finished", steps_done - 1)
    assert len(recorded(path)) == steps_done


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_that_is_over_stays_so_whatever_becomes_of_looking_at_it(
    path: Path, config: ExperimentConfig, error: type[BaseException]
) -> None:
    with RunFolder.create(path, config, seed=0) as folder:
        for step in range(config.steps):
            folder.write_step(step, {})
    before = {name: (path / name).read_bytes() for name in (STATUS, CONFIG)}
    with pytest.raises(error), RunFolder.reopen(path, config, seed=0) as folder:
        assert folder.is_over
        raise error
    assert {name: (path / name).read_bytes() for name in before} == before
