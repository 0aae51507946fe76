"""Whether a run may go on: what decides its numbers must be what it was, everything else may change."""

from pathlib import Path
from typing import Any

import pytest
from experiment_files import changed

from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.experiment_file import merge
from orchestrator.run.folder import CONFIG, RunFolder
from orchestrator.run.resume import check_resumable

FILE = "e.yaml"
BEFORE: dict[str, Any] = {"scheduler": {"kind": "constant", "lr": 1e-6}, "arms": {"a": {"steps": 3}}, "seeds": [0, 1]}


def config_of(changes: dict[str, Any]) -> ExperimentConfig:
    return ExperimentConfig.model_validate(changed(merge(BEFORE, changes)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a run of the file as it was, with seed 1."""
    with RunFolder.create(tmp_path / "run", config_of({}), seed=1):
        pass
    return tmp_path / "run"


def refusal(folder: Path, changes: dict[str, Any], seed: int = 1) -> str:
    with pytest.raises(ConfigError) as raised:
        check_resumable(folder, config_of(changes), seed, FILE)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_nothing_need_be_there(tmp_path: Path) -> None:
    check_resumable(tmp_path / "no run", config_of({}), 0, FILE)
    tmp_path.joinpath("run").mkdir()
    check_resumable(tmp_path / "run", config_of({}), 0, FILE)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"steps": 99},
        {"steps": 3},
        {"evaluation": {"every": 5, "samples": 4}},
        {"tracking": {"uri": "http://mlflow:5000", "experiment": "other"}},
        {"learner": {"workers": 4, "cpus_per_worker": 2.0}},
        {"rollout": {"cpus_per_worker": 2.0}},
        {"cluster": {"address": "auto", "restarts": {"learner": 9}, "silence_timeout_s": 5}},
        {"checkpoint": {"every": 7, "keep": 1}},
        {"seeds": [1]},
        {"seeds": [5, 1, 7]},
        {"arms": {"b": {}}},
    ],
    ids=str,
)
def test_how_far_it_goes_what_it_looks_at_and_where_it_runs_may_change(folder: Path, changes: dict[str, Any]) -> None:
    before = (folder / CONFIG).read_bytes()
    check_resumable(folder, config_of(changes), 1, FILE)
    assert (folder / CONFIG).read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scheduler": {"lr": 2e-6}}, "scheduler.lr: got 2e-06, expected the value of the run that is resumed: 1e-06"),
        (
            {"rollout": {"group_size": 4}},
            "rollout.group_size: got 4, expected the value of the run that is resumed: 2",
        ),
        (
            {"rollout": {"workers": 3}},  # log-probs depend on what shares the batch
            "rollout.workers: got 3, expected the value of the run that is resumed: 1",
        ),
        (
            {"stability": {"on_collapse": "stop"}},
            "stability.on_collapse: got 'stop', expected the value of the run that is resumed: 'record'",
        ),
        (
            {"scheduler": {"lr": 2e-6, "warmup_steps": 3}},
            "scheduler.lr: got 2e-06, expected the value of the run that is resumed: 1e-06 (also different: "
            "scheduler.warmup_steps)",
        ),
    ],
)
def test_what_decides_the_numbers_may_not_and_is_told_with_file_field_and_both_values(
    folder: Path, changes: dict[str, Any], said: str
) -> None:
    assert refusal(folder, changes) == f"{FILE}: {said}"


def test_a_stored_config_that_cannot_be_read_is_told(folder: Path) -> None:
    (folder / CONFIG).write_text("name: [")
    assert refusal(folder, {}).startswith(f"{folder / CONFIG}")
