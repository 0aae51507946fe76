"""Runs that are disturbed, and the undisturbed run that each of them has to equal step by step."""

import json
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient
from real_run import command, completed, environment

LIMIT_S = 900
FILE = """\
name: tiny
model: {path: embedded}
task: {kind: arithmetic, digits: 3}
rollout: {workers: ENGINES, prompts_per_step: 4, group_size: 4, max_response_tokens: 32, filter_flat_groups: true}
learner: {workers: 2}
scheduler: {kind: length_triggered, lr: 1.0e-4, decay_period: 2}
evaluation: {every: 4, problems: 8}
steps: 8
checkpoint: {every: 3, keep: 2}
cluster: {silence_timeout_s: 8}
"""
RUN = Path("runs", "tiny", "default", "seed-0")
MEASURED_ANEW = ("time/", "throughput/")
EXACT = ("reward/", "response/", "sampling/", "scheduler/", "eval/", "stability/")


def write_file(folder: Path, engines: int = 2) -> Path:
    """A folder with the experiment `tiny.yaml` in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.yaml").write_text(FILE.replace("ENGINES", str(engines)))
    return folder


def run(folder: Path, *options: str, faults: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the experiment to its end, or to that of its driver."""
    changes = {"EVENKEEL_FAULTS": faults} if faults else {}
    return completed(command("run", "tiny.yaml", *options), folder, environment(**changes), limit_s=LIMIT_S)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics of the run below a folder."""
    return [json.loads(line) for line in (folder / RUN / "metrics.jsonl").read_text().splitlines()]


def deterministic(row: dict[str, Any]) -> dict[str, Any]:
    """Without what is measured anew each time."""
    return {key: value for key, value in row.items() if not key.startswith(MEASURED_ANEW)}


def differences(undisturbed: Sequence[dict[str, Any]], disturbed: Sequence[dict[str, Any]]) -> list[str]:
    """Where two runs differ: steps, keys, rewards, lengths, rates and decisions exactly, other floats by 1e-6."""
    if [row["step"] for row in disturbed] != [row["step"] for row in undisturbed]:
        return [f"steps {[row['step'] for row in disturbed]}"]
    found = []
    for left, right in zip(map(deterministic, undisturbed), map(deterministic, disturbed), strict=True):
        found += [f"step {left['step']}: {key} in one only" for key in left.keys() ^ right.keys()]
        for key in left.keys() & right.keys():
            tolerance = 0.0 if key.startswith(EXACT) else 1e-6
            if not math.isclose(left[key], right[key], rel_tol=tolerance, abs_tol=tolerance):
                found.append(f"step {left['step']}: {key} {left[key]} became {right[key]}")
    return found


def steps_at_mlflow(folder: Path, key: str = "scheduler/lr", uri: str | None = None) -> list[list[int]]:
    """For each run that MLflow knows, in the order of their beginning, the steps that it has points of, sorted."""
    client = MlflowClient(uri or f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, order_by=["attributes.start_time ASC"])
    return [sorted(point.step for point in client.get_metric_history(run.info.run_id, key)) for run in found]


def children_of(pid: int) -> list[psutil.Process]:
    """All processes below one."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def role_of(process: psutil.Process) -> str:
    """`Learner` of a process that Ray shows as `ray::Learner.apply`; empty for other processes."""
    try:
        return process.name().removeprefix("ray::").partition(".")[0] if process.name().startswith("ray::") else ""
    except psutil.Error:
        return ""
