"""`evenkeel compare` from beginning to end, inside a network namespace that has nothing but loopback."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from real_run import TINY, command, completed, environment

from actors.statistics import MismatchSums

NOT_REPEATABLE = ("time/", "throughput/")
ISOLATED = ("unshare", "--map-root-user", "--net", sys.executable, str(Path(__file__).with_name("loopback_only.py")))

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    folder: Path
    finished: "subprocess.CompletedProcess[str]"
    attempts_to_leave: int | None  # None where this machine allows no namespaces

    def rows(self, arm: str) -> list[dict[str, float]]:
        text = (self.folder / "runs" / "tiny" / arm / "seed-0" / "metrics.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def repeatable(self, arm: str) -> list[dict[str, float]]:
        return [{k: v for k, v in row.items() if not k.startswith(NOT_REPEATABLE)} for row in self.rows(arm)]


def namespaces_are_allowed(folder: Path) -> bool:
    probe = [*ISOLATED, str(folder / "probe"), "true"]
    try:
        return completed(probe, folder, environment()).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("comparison")
    (folder / "tiny.yaml").write_text(TINY)
    report = folder / "attempts"
    isolated = namespaces_are_allowed(folder)
    prefix = [*ISOLATED, str(report)] if isolated else []
    finished = completed([*prefix, *command("compare", "tiny.yaml")], folder, environment())
    assert finished.returncode == 0, finished.stderr
    return Comparison(folder=folder, finished=finished, attempts_to_leave=int(report.read_text()) if isolated else None)


def test_every_arm_records_every_step_once(comparison: Comparison) -> None:
    for arm in ("baseline", "twin", "decay"):
        assert [row["step"] for row in comparison.rows(arm)] == [0, 1, 2, 3]


def test_every_step_has_all_mismatch_and_gradient_metrics(comparison: Comparison) -> None:
    keys = MismatchSums.from_logprobs([-1.0], [-1.1], lengths=[1]).metrics()
    gradient = ("norm", "norm_smoothed", "clipped", "nonfinite")
    for row in comparison.rows("baseline"):
        assert {f"mismatch/{key}" for key in keys} | {f"gradient/{key}" for key in gradient} <= row.keys()
        assert row["mismatch/sequences"] == 16
        assert 0 < row["mismatch/log_ppl_abs_diff"] < 0.1
        assert row["gradient/norm"] > 0


def test_the_same_seed_gives_the_same_run_bit_for_bit(comparison: Comparison) -> None:
    assert comparison.repeatable("twin") == comparison.repeatable("baseline")


def test_arms_are_identical_until_the_first_decay_and_differ_after_it(comparison: Comparison) -> None:
    baseline, decay = comparison.repeatable("baseline"), comparison.repeatable("decay")
    assert decay[:2] == baseline[:2]
    assert decay[2]["scheduler/event/decay"] == 1
    assert decay[2]["scheduler/lr"] == baseline[2]["scheduler/lr"] / 2
    assert decay[2]["gradient/norm"] == baseline[2]["gradient/norm"]  # measured before the update
    assert decay[3]["mismatch/train_log_ppl"] != baseline[3]["mismatch/train_log_ppl"]


def test_the_table_and_the_figure_are_there(comparison: Comparison) -> None:
    figure = comparison.folder / "runs" / "tiny" / "comparison.png"
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "decay 2" in comparison.finished.stdout
    assert "2 syncs" in comparison.finished.stdout


def test_nothing_tries_to_leave_the_machine(comparison: Comparison) -> None:
    if comparison.attempts_to_leave is None:
        pytest.skip("this machine allows no network namespaces")
    assert comparison.attempts_to_leave == 0


def test_mlflow_has_the_arms_as_children_with_whole_curves(comparison: Comparison) -> None:
    client = MlflowClient(f"sqlite:///{comparison.folder / 'runs' / 'mlflow.db'}")
    [experiment] = [found for found in client.search_experiments() if found.name == "tiny"]
    runs = client.search_runs([experiment.experiment_id])
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    query = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    children = client.search_runs([experiment.experiment_id], filter_string=query)
    assert sorted(run.data.tags["arm"] for run in children) == ["baseline", "decay", "twin"]
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["comparison.png", "report.html"]
    for run in children:
        curve = client.get_metric_history(run.info.run_id, "reward/mean")
        recorded = [row["reward/mean"] for row in comparison.rows(run.data.tags["arm"])]
        assert [point.value for point in sorted(curve, key=lambda point: point.step)] == recorded
        assert run.info.status == "FINISHED"
        assert run.data.params["rollout.group_size"] == "4"
        assert {"seed", "version.vllm", "version.torch", "version.ray", "version.transformers"} <= run.data.tags.keys()
