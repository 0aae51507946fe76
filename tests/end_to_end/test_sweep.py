"""`evenkeel sweep` from beginning to end: killed, resumed, and held against runs that share nothing."""

import json
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from real_run import TINY, command, environment, evenkeel

from sweeps.study.record import StudyRecord

SWEEP = """\
name: shared
experiment: tiny.yaml
changes: {steps: 10, evaluation: {every: 3}, rollout: {prompts_per_step: 3}}
space:
  scheduler.kind: {kind: categorical, choices: [length_triggered, signal_triggered]}
  scheduler.decay_period: {kind: int, low: 4, high: 12, when: {scheduler.kind: length_triggered}}
  scheduler.signal: {kind: categorical, choices: [gradient/norm_smoothed], when: {scheduler.kind: signal_triggered}}
  scheduler.threshold: {kind: float, low: 0.4, high: 0.6, when: {scheduler.kind: signal_triggered}}
  scheduler.cooldown_steps: {kind: int, low: 3, high: 8, when: {scheduler.kind: signal_triggered}}
objective: {metric: eval/held_out/avg@1, last: 2}
constraints: [{metric: mismatch/log_ppl_abs_diff, at_most: 1.0}]
trials: 6
enqueue:
  - {scheduler.kind: length_triggered, scheduler.decay_period: 12}
  - {scheduler.kind: length_triggered, scheduler.decay_period: 5}
sharing: {every: 2}
"""
START_LIMIT_S = 200
NOT_REPEATABLE = ("time/", "throughput/")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    folder: Path
    resumed: "subprocess.CompletedProcess[str]"

    @property
    def record(self) -> StudyRecord:
        return StudyRecord.read(self.folder / "runs" / "shared")


def rows(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith(NOT_REPEATABLE)} for row in lines]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A study that was killed in the middle of its second trial, and then resumed."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "sweep.yaml").write_text(SWEEP)
    driver = subprocess.Popen(
        command("sweep", "sweep.yaml"), cwd=folder, env=environment(), stdout=subprocess.DEVNULL, text=True
    )
    metrics = folder / "runs" / "shared" / "trial-001" / "seed-0" / "metrics.jsonl"
    until = time.monotonic() + START_LIMIT_S
    while not (metrics.exists() and metrics.read_text().count("\n") >= 7):
        assert time.monotonic() < until and driver.poll() is None, "the study did not come to its second trial"
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    return Swept(folder=folder, resumed=evenkeel("sweep", "sweep.yaml", "--resume", cwd=folder))


def test_a_study_that_was_killed_goes_on_without_losing_or_doubling_a_trial(swept: Swept) -> None:
    assert swept.resumed.returncode == 0, swept.resumed.stderr
    trials = swept.record.trials
    assert [trial.number for trial in trials] == list(range(6))
    assert {trial.state for trial in trials} == {"complete"}
    assert trials[1].params == {"scheduler.kind": "length_triggered", "scheduler.decay_period": 5}
    for trial in trials:
        run = swept.folder / "runs" / "shared" / trial.arm / "seed-0"
        assert [row["step"] for row in rows(run)] == list(range(10))


def test_the_accounts_say_what_was_shared(swept: Swept) -> None:
    record = swept.record
    first, second = record.trials[0].seeds["0"], record.trials[1].seeds["0"]
    assert (first.executed, first.source, first.forked_at) == (0, "baseline", 10)
    assert (second.executed, second.source, second.forked_at) == (6, "baseline", 4)
    account = record.accounting
    executed = sum(run.executed for trial in record.trials for run in trial.seeds.values())
    assert (account.naive, account.executed) == (60, 10 + executed)
    assert account.free >= 1
    assert f"{account.executed} training steps instead of 60" in swept.resumed.stdout


def test_forked_trials_equal_trials_that_share_nothing(swept: Swept) -> None:
    decided_alone = [trial for trial in swept.record.trials if trial.seeds["0"].executed > 0]
    assert len(decided_alone) >= 2
    tree = {**yaml.safe_load(SWEEP), "name": "alone", "sharing": {"enabled": False}}
    chosen = [swept.record.trials[0], *decided_alone[:3]]
    tree |= {"trials": len(chosen), "enqueue": [trial.params for trial in chosen]}
    (swept.folder / "alone.yaml").write_text(yaml.safe_dump(tree))
    finished = evenkeel("sweep", "alone.yaml", cwd=swept.folder)
    assert finished.returncode == 0, finished.stderr
    alone = StudyRecord.read(swept.folder / "runs" / "alone")
    for shared, whole in zip(chosen, alone.trials, strict=True):
        assert whole.seeds["0"].executed == 10
        assert (shared.params, shared.value, shared.constraints) == (whole.params, whole.value, whole.constraints)
        runs = swept.folder / "runs"
        assert rows(runs / "shared" / shared.arm / "seed-0") == rows(runs / "alone" / whole.arm / "seed-0")


def test_mlflow_has_every_run_as_a_child_with_its_whole_curve(swept: Swept) -> None:
    client = MlflowClient(f"sqlite:///{swept.folder / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("shared")
    assert experiment is not None
    everything = client.search_runs([experiment.experiment_id])
    [parent] = [run for run in everything if run.info.run_name == "shared study"]
    children = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert len(everything) == 1 + len(children)
    arms = ["baseline", *(f"trial-{number:03d}" for number in range(6))]
    assert sorted(run.data.tags["arm"] for run in children) == arms
    for run in children:
        history = client.get_metric_history(run.info.run_id, "scheduler/lr")
        assert sorted(point.step for point in history) == list(range(10))
    by_arm = {run.data.tags["arm"]: run.data.tags for run in children}
    assert by_arm["trial-001"]["forked_from"] == "baseline"
    assert by_arm["trial-001"]["trial.state"] == "complete"
    best = swept.record.best
    assert best is not None and parent.data.tags["best.trial"] == str(best.number)


def test_a_study_that_is_there_is_not_begun_again(swept: Swept) -> None:
    refused = evenkeel("sweep", "sweep.yaml", cwd=swept.folder)
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    assert line.startswith("evenkeel: sweep.yaml: name: got 'shared', expected a study that is not in ")
