"""Corrections, token baseline, noise, evaluation, shadows and verdicts in real runs, and the quantised control."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from real_run import ROOT, evenkeel

from orchestrator.experiment_file import ExperimentFile
from orchestrator.metric_keys import signal_keys

pytestmark = pytest.mark.slow

# One arm has everything at once, on two learner ranks, and is declared collapsed by a limit that any mismatch exceeds;
# of the other a correction drops every sequence.
SCIENCE = """\
name: science
model: {path: embedded}
task: {kind: arithmetic, digits: 3}
evaluation: {every: 2, problems: 8, samples: 2}
rollout: {workers: 1, prompts_per_step: 4, group_size: 4, max_response_tokens: 32, filter_flat_groups: true}
learner: {workers: 1}
scheduler: {kind: constant, lr: 1.0e-4}
shadow:
  half: {kind: step, lr: 2.0e-4, period: 1}
  alarm: {kind: signal_triggered, lr: 1.0e-4, signal: mismatch/k3_kl, threshold: 0.0, patience: 2}
stability: {on_collapse: stop, patience: 3, max_mismatch: 1.0e-9}
steps: 6
arms:
  everything:
    learner: {workers: 2, advantage: optimal_token_baseline, loss: sequence_mean, correction: {kind: token_tis}}
  dropped:
    learner: {correction: {kind: geometric_mask, lo: 50.0, hi: 60.0}}
    stability: {on_collapse: record}
    steps: 2
"""
KNOWN_ONLY_AFTERWARDS = ("step", "time/", "throughput/", "scheduler/", "stability/", "gradient/update_norm_ratio")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both arms have run."""
    folder = tmp_path_factory.mktemp("science")
    (folder / "science.yaml").write_text(SCIENCE)
    finished = evenkeel("compare", "science.yaml", cwd=folder)
    assert finished.returncode == 0, finished.stderr
    (folder / "stdout").write_text(finished.stdout)
    return folder


@pytest.fixture(scope="module")
def everything(folder: Path) -> Path:
    return folder / "runs" / "science" / "everything" / "seed-0"


@pytest.fixture(scope="module")
def dropped(folder: Path) -> Path:
    return folder / "runs" / "science" / "dropped" / "seed-0"


def test_a_run_logs_exactly_the_keys_that_policies_may_look_at(folder: Path, everything: Path) -> None:
    config = ExperimentFile.read(folder / "science.yaml").resolve("everything")
    logged = {key for row in rows_of(everything) for key in row if not key.startswith(KNOWN_ONLY_AFTERWARDS)}
    may_be_absent = {"gradient/noise_scale"}  # while the smoothed signal is negative
    assert logged | may_be_absent == set(signal_keys(config.learner, config.evaluation))


def test_every_update_has_its_noise_its_size_and_its_correction(everything: Path) -> None:
    for row in rows_of(everything):
        assert row["gradient/noise"] > 0
        assert 0 < row["gradient/update_norm_ratio"] < 0.1
        assert row["correction/sequences_kept"] == row["correction/tokens_kept"] == 1
        assert 1 <= row["correction/weight_max"] <= 2
        assert 0.5 < row["correction/ess"] <= 1


def test_held_out_problems_are_evaluated_when_due(everything: Path, dropped: Path) -> None:
    assert [row["step"] for row in rows_of(everything) if "eval/held_out/avg@2" in row] == [0, 2]
    first, last = rows_of(dropped)
    assert 0 <= first["eval/held_out/avg@2"] <= 1
    assert "eval/held_out/avg@2" in last  # the last step of a run


def test_shadow_policies_log_and_change_nothing(everything: Path) -> None:
    rows = rows_of(everything)
    assert [row["scheduler/lr"] for row in rows] == [1e-4] * 3
    assert [row["scheduler/shadow/half/lr"] for row in rows] == [2e-4, 1e-4, 5e-5]
    assert [row["scheduler/shadow/alarm/lr"] for row in rows] == [1e-4, 5e-5, 5e-5]
    assert [row["step"] for row in rows if "scheduler/shadow/alarm/event/decay" in row] == [1]


def test_a_collapse_stops_the_run_and_is_recorded_as_data(folder: Path, everything: Path) -> None:
    rows = rows_of(everything)
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert [row.get("stability/collapsed") for row in rows] == [None, None, 1]
    verdict = json.loads((everything / "verdict.json").read_text())
    assert (verdict["collapsed"], verdict["step"], verdict["reason"]) == (True, 2, "mismatch")
    assert "collapsed at step 2" in (folder / "stdout").read_text()
    client = MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    [experiment] = [found for found in client.search_experiments() if found.name == "science"]
    [run] = client.search_runs([experiment.experiment_id], filter_string="tags.arm = 'everything'")
    tags = {key: run.data.tags[key] for key in ("collapsed", "collapse.step", "collapse.reason")}
    assert tags == {"collapsed": "true", "collapse.step": "2", "collapse.reason": "mismatch"}
    assert run.info.status == "FINISHED"


def test_steps_with_everything_dropped_are_empty_and_leave_the_weights(dropped: Path) -> None:
    rows = rows_of(dropped)
    assert [row["sampling/empty_steps"] for row in rows] == [1, 1]
    assert [row["correction/sequences_kept"] for row in rows] == [0, 0]
    assert not any(key.startswith(("mismatch/", "gradient/", "policy/")) for row in rows for key in row)
    assert not any("time/publish" in row for row in rows)
    assert json.loads((dropped / "verdict.json").read_text()) == {"collapsed": False}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The first steps of the shipped control's plain and int8 arms."""
    folder = tmp_path_factory.mktemp("quantized")
    file = str(ROOT / "examples" / "controls" / "quantized.yaml")
    smaller = [*("--set", "steps=3"), *("--set", "learner.workers=1"), *("--set", "rollout.prompts_per_step=8")]
    for arm in ("plain", "int8"):
        finished = evenkeel("run", file, "--arm", arm, *smaller, cwd=folder)
        assert finished.returncode == 0, finished.stderr
    arms = folder / "runs" / "controls-quantized"
    return {arm: rows_of(arms / arm / "seed-0") for arm in ("plain", "int8")}


def test_a_quantised_rollout_shows_in_the_mismatch_from_the_first_step(
    quantized: dict[str, list[dict[str, Any]]],
) -> None:
    for plain, int8 in zip(quantized["plain"], quantized["int8"], strict=True):
        assert int8["mismatch/log_ppl_abs_diff"] >= 3 * plain["mismatch/log_ppl_abs_diff"]
        assert int8["mismatch/token_abs_diff"] >= 3 * plain["mismatch/token_abs_diff"]
