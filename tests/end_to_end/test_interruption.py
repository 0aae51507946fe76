"""A run that is interrupted or killed leaves what it recorded, and no process."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from real_run import command, environment, evenkeel

START_LIMIT_S = 150
GONE_WITHIN_S = 10

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    driver: "subprocess.Popen[str]"
    metrics: Path
    processes: list[psutil.Process]  # all below the driver


Start = Callable[..., Running]


@pytest.fixture
def start(tiny: Path) -> Iterator[Start]:
    """Starts runs that have recorded some steps; what a failing test leaves of them is killed."""
    drivers: list[subprocess.Popen[str]] = []

    def started(steps: int, *options: str) -> Running:
        driver = subprocess.Popen(
            command("run", "tiny.yaml", "--arm", "baseline", "--set", "steps=100000", *options),
            cwd=tiny,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        drivers.append(driver)
        metrics = tiny / "runs" / "tiny" / "baseline" / "seed-0" / "metrics.jsonl"
        until = time.monotonic() + START_LIMIT_S
        while time.monotonic() < until and driver.poll() is None:
            if metrics.exists() and metrics.read_text().count("\n") >= steps:
                below = psutil.Process(driver.pid).children(recursive=True)
                return Running(driver=driver, metrics=metrics, processes=below)
            time.sleep(0.2)
        driver.kill()
        raise AssertionError(f"the run did not get to step {steps}: {driver.communicate()[0]}")

    yield started
    for driver in drivers:
        driver.kill()


def roles(processes: list[psutil.Process]) -> set[str]:
    """Names without the method that a Ray actor shows behind its own while it runs one."""
    return {process.name().partition(".")[0] for process in processes}


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_an_interrupted_run_ends_cleanly_and_keeps_its_steps(start: Start, how: signal.Signals) -> None:
    run = start(2)
    run.driver.send_signal(how)
    output, _ = run.driver.communicate(timeout=60)
    assert run.driver.returncode == 130
    assert "interrupted; what was recorded is kept" in output
    assert "Traceback" not in output
    steps = [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()]
    assert len(steps) >= 2 and steps == list(range(len(steps)))
    _, left = psutil.wait_procs(run.processes, timeout=GONE_WITHIN_S)
    assert alive(left) == []


def test_a_killed_driver_takes_all_its_processes_with_it(start: Start) -> None:
    run = start(1)
    assert {"raylet", "ray::RolloutWorker", "ray::Learner"} <= roles(run.processes)
    run.driver.kill()
    run.driver.communicate()
    _, left = psutil.wait_procs(run.processes, timeout=GONE_WITHIN_S)
    assert alive(left) == []


def test_a_killed_worker_that_may_not_start_again_ends_the_run_with_its_name(start: Start) -> None:
    run = start(1, "--set", "cluster.restarts.learner=0", "--set", "simulation.workers_per_process=1")
    [learner] = [process for process in run.processes if process.name().startswith("ray::SimulatedLearner")]
    learner.kill()
    output, _ = run.driver.communicate(timeout=60)
    assert run.driver.returncode == 1
    assert "evenkeel: learner-0 was lost in " in output
    assert "Traceback" not in output


@pytest.mark.long
def test_a_fault_on_a_tensor_that_is_not_there_is_a_mistake(tiny: Path) -> None:
    refused = evenkeel("run", "tiny.yaml", "--arm", "baseline", cwd=tiny, EVENKEEL_FAULTS="drop tensor lm_haed.weight")
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    assert line.endswith(
        "got 'lm_haed.weight', expected the name of a tensor of this model; did you mean 'lm_head.weight'?"
    )


def test_a_run_whose_weights_do_not_arrive_refuses_to_start(tiny: Path) -> None:
    refused = evenkeel("run", "tiny.yaml", "--arm", "baseline", cwd=tiny, EVENKEEL_FAULTS="drop tensor lm_head.weight")
    assert refused.returncode == 1
    [line] = refused.stderr.splitlines()
    assert line.startswith("evenkeel: weight-sync self-test failed: output head: lm_head.weight did not arrive")
    assert (tiny / "runs" / "tiny" / "baseline" / "seed-0" / "metrics.jsonl").read_text() == ""
