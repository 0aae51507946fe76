"""Jobs on a real cluster that wants a token: `evenkeel submit`, and Ray's own `ray job submit`."""

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from ray_cluster import BIN, RayCluster, ray_cluster
from real_run import LIMIT_S, ROOT, TINY, command, completed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GAUGE = "ray_evenkeel_"
# Of the cluster's 4 CPUs a run takes more than half.
LARGE = """\
name: large
model: {path: embedded}
task: {kind: arithmetic, digits: 3}
rollout: {workers: 2, cpus_per_worker: 1.0, prompts_per_step: 4, group_size: 2, max_response_tokens: 32}
learner: {workers: 1, cpus_per_worker: 0.4}
scheduler: {kind: constant, lr: 1.0e-4}
steps: 2
simulation: {seconds: {start: 0.01, generate: 0.1, gradients: 0.1, apply: 0.01, publish: 0.01}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A comparison that was submitted, and what could be seen of it meanwhile."""

    folder: Path
    finished: "subprocess.CompletedProcess[str]"
    metric_lines: list[str]

    @property
    def job(self) -> str:
        return self.finished.stdout.partition(":")[0]

    def mlflow_runs(self) -> list[Run]:
        client = MlflowClient(f"sqlite:///{self.folder / 'kept' / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("tiny")
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id]))


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(cpus=4) as up:
        yield up


@pytest.fixture(scope="module")
def submitted(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    """Submitted from a folder that is not our checkout, with runs kept beside it."""
    folder = tmp_path_factory.mktemp("submitted")
    arms = "arms:\n  baseline: {}\n  decay: {scheduler: {kind: length_triggered, lr: 1.0e-4, decay_period: 2}}\n"
    (folder / "project").mkdir()
    (folder / "project" / "tiny.yaml").write_text(TINY.partition("arms:")[0].replace("steps: 4", "steps: 2") + arms)
    seen: dict[str, None] = {}
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(0.5):
            seen.update(dict.fromkeys(cluster.metric_lines(GAUGE)))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        arguments = ("submit", "compare", "tiny.yaml", "--address", cluster.address, "--runs", str(folder / "kept"))
        finished = completed(command(*arguments), folder / "project", cluster.environment())
    finally:
        is_over.set()
        looking.join()
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return Submitted(folder=folder, finished=finished, metric_lines=list(seen))


def test_a_submitted_comparison_is_followed_to_its_end(submitted: Submitted) -> None:
    lines = submitted.finished.stdout.splitlines()
    kept = submitted.folder / "kept"
    assert submitted.job.startswith("raysubmit_")
    assert lines[0] == f"{submitted.job}: python -m sweeps compare tiny.yaml --runs {kept}"
    assert any(line.startswith("decay seed 0: step 2/2  reward ") for line in lines)
    assert lines[-1] == f"{submitted.job}: succeeded, exit code 0"
    assert submitted.finished.stderr == ""


def test_its_results_are_where_they_were_wanted(submitted: Submitted) -> None:
    results = submitted.folder / "kept" / "tiny"
    assert (results / "report.html").is_file() and (results / "comparison.png").is_file()
    for arm in ("baseline", "decay"):
        text = (results / arm / "seed-0" / "metrics.jsonl").read_text()
        assert [json.loads(line)["step"] for line in text.splitlines()] == [0, 1]
    assert [path.name for path in (submitted.folder / "project").iterdir()] == ["tiny.yaml"]


def test_mlflow_has_the_children_and_all_bear_the_job(submitted: Submitted) -> None:
    runs = submitted.mlflow_runs()
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.data.tags["arm"] for run in children) == ["baseline", "decay"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    # what is resumed is another job's
    assert len({run.data.tags["ray_submission_id"] for run in runs}) == 1


def test_the_metrics_page_of_the_node_has_the_headline_metrics(submitted: Submitted) -> None:
    text = (submitted.folder / "kept" / "tiny" / "baseline" / "seed-0" / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    of_baseline = [line for line in submitted.metric_lines if 'arm="baseline"' in line]
    assert all('run="tiny"' in line and 'seed="0"' in line for line in of_baseline)
    seen: dict[str, set[float]] = {}
    for line in of_baseline:
        name = line.removeprefix(GAUGE).partition("{")[0]
        seen.setdefault(name, set()).add(float(line.rpartition(" ")[2]))
    names = {"step", "collapsed", "reward_mean", "scheduler_lr", "gradient_norm", "time_step_seconds"}
    assert names | {"mismatch_log_ppl_abs_diff", "response_length_mean"} == seen.keys()
    assert seen["collapsed"] == {0.0}
    assert seen["step"] <= {0.0, 1.0}
    assert seen["reward_mean"] <= {row["reward/mean"] for row in rows}


def test_rays_own_command_takes_the_checkout_along(submitted: Submitted, cluster: RayCluster) -> None:
    ray = [str(BIN / "ray"), "job", "submit", "--address", cluster.address, "--working-dir", "."]
    kept, file = submitted.folder / "kept", submitted.folder / "project" / "tiny.yaml"
    ours = ["python", "-m", "sweeps", "compare", str(file), "--resume", "--runs", str(kept)]
    (kept / "tiny" / "report.html").unlink()
    finished = completed([*ray, "--", *ours], ROOT, cluster.environment())
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "decay seed 0: is over already, with 2 steps" in finished.stdout
    assert (kept / "tiny" / "report.html").is_file()
    assert {run.data.tags["ray_submission_id"] for run in submitted.mlflow_runs()} != {submitted.job}


def test_a_job_that_is_interrupted_is_stopped_if_it_shall(submitted: Submitted, cluster: RayCluster) -> None:
    arguments = ("submit", "run", "tiny.yaml", "--address", cluster.address, "--stop-on-interrupt")
    submitting = subprocess.Popen(
        command(*arguments),
        cwd=submitted.folder / "project",
        env=cluster.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert submitting.stdout is not None
    for line in submitting.stdout:
        if "Running entrypoint" in line:
            break
    submitting.send_signal(signal.SIGINT)
    rest = submitting.stdout.read()
    assert submitting.wait(LIMIT_S) == 130
    assert rest.splitlines()[-1].endswith(": stopped")


@pytest.mark.long
def test_where_there_is_room_for_one_run_the_next_waits_or_is_refused_with_its_name(
    cluster: RayCluster, tmp_path: Path
) -> None:
    (tmp_path / "large.yaml").write_text(LARGE)

    def submit(seed: int, *options: str) -> list[str]:
        where = ("--address", cluster.address, "--driver-cpus", "0", "--stop-on-interrupt")
        return command("submit", "run", "large.yaml", *where, "--seed", str(seed), *options)

    def begin(until: str, seed: int, *options: str) -> "subprocess.Popen[str]":
        started = subprocess.Popen(
            submit(seed, *options), cwd=tmp_path, env=cluster.environment(), stdout=subprocess.PIPE, text=True
        )
        assert started.stdout is not None
        assert any(until in line for line in started.stdout)
        return started

    first = begin("weights arrive", 0, "--set", "steps=100000")
    second = begin("waits for workers", 1, "--set", "cluster.placement_timeout_s=300")
    third = completed(submit(2, "--set", "cluster.placement_timeout_s=0.5"), tmp_path, cluster.environment())
    assert third.returncode == 1
    assert "no room within 0.5 s: needs 2 x rollout (1 CPU)" in third.stdout
    assert "held by large (Ray job" in third.stdout
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=LIMIT_S)
    told, _ = second.communicate(timeout=LIMIT_S)
    assert (first.returncode, second.returncode) == (130, 0)
    assert "large" in told and "exit code 0" in told


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"RAY_AUTH_TOKEN": ""}, "there is none here"), ({"RAY_AUTH_TOKEN": "ab" * 32}, "the one here is another")],
)
def test_without_the_token_there_is_one_clear_line(
    submitted: Submitted, cluster: RayCluster, changes: dict[str, str], problem: str
) -> None:
    env = cluster.environment() | changes | {"HOME": str(submitted.folder)}
    env = {name: value for name, value in env.items() if value}
    arguments = ("submit", "compare", "tiny.yaml", "--address", cluster.address)
    refused = completed(command(*arguments), submitted.folder / "project", env)
    assert (refused.returncode, refused.stdout) == (2, "")
    [line] = refused.stderr.splitlines()
    assert line.startswith(f"evenkeel: --address: expected the token of the cluster at {cluster.address}: {problem}")
