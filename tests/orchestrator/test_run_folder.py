"""A run's folder: nothing overwritten, lines as the steps end, and a crash in the middle of one."""

import json
import logging
import math
from pathlib import Path

import pytest

from orchestrator.config import ExperimentConfig
from orchestrator.run_folder import CONFIG, LOG, METRICS, VERDICT, RunFolder, move_aside, run_path
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


@pytest.fixture
def config() -> ExperimentConfig:
    return ExperimentConfig.model_validate(CONFIG_TREE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return run_path(tmp_path, "e", "decay", 3)


def test_a_run_lives_under_name_arm_and_seed() -> None:
    assert run_path(Path("runs"), "demo", "decay", 3) == Path("runs/demo/decay/seed-3")


def test_the_resolved_config_is_kept_and_can_be_read_again(path: Path, config: ExperimentConfig) -> None:
    with RunFolder.create(path, config, seed=0):
        pass
    stored = read_mapping(path / CONFIG)
    assert "arms" not in stored
    assert ExperimentConfig.model_validate(stored) == config.model_copy(update={"arms": {}})


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
    with RunFolder(path) as folder:
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
