"""Every kind of failure at every moment of a step, at random moments, and for long: each run equals the undisturbed.

What the last whole run printed is kept in docs/failures-measured.md.
"""

import os
import random
import re
import signal
import statistics
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from disturbed_run import (
    RUN,
    children_of,
    differences,
    role_of,
    rows,
    run,
    steps_at_mlflow,
    write_file,
)
from mlflow_servers import Server
from real_run import command, environment
from stand_in_run import random_strikes, stand_in_run

pytestmark = [pytest.mark.long, pytest.mark.timeout(7200)]
MOMENTS = {"rollout": 2, "gradients": 4, "publish": 6}  # phase: step
ROLES = ("RolloutWorker", "Learner", "Scheduler")
LONG_STEPS = 90
REAL_FAULTS, STAND_IN_FAULTS, STAND_IN_STEPS = 20, 180, 400


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_file(tmp_path_factory.mktemp("undisturbed"))
    ended = run(folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def losses_told(folder: Path) -> int:
    """How many losses the log tells of."""
    return len(re.findall(r" WARNING \S+ was lost in ", (folder / RUN / "log.txt").read_text()))


def assert_equal(undisturbed: Path, disturbed: Path, steps: int = 8) -> None:
    assert differences(rows(undisturbed), rows(disturbed)) == []
    assert steps_at_mlflow(disturbed) == [list(range(steps))]


@pytest.mark.parametrize("who", ["rollout 1", "learner 0", "learner 1", "scheduler"])
@pytest.mark.parametrize("action", ["kill", "stop"])
def test_a_worker_is_lost_at_three_moments(undisturbed: Path, tmp_path: Path, action: str, who: str) -> None:
    """0.05 s into the phase: the calls are under way."""
    faults = "; ".join(f"{action} {who} at step {step} in {phase} after 0.05 s" for phase, step in MOMENTS.items())
    folder = write_file(tmp_path)
    ended = run(folder, faults=faults)
    assert ended.returncode == 0, ended.stderr
    assert losses_told(folder) == len(MOMENTS)
    assert_equal(undisturbed, folder)


@pytest.mark.parametrize(("phase", "step"), MOMENTS.items())
def test_the_driver_is_killed_and_the_run_goes_on(undisturbed: Path, tmp_path: Path, phase: str, step: int) -> None:
    folder = write_file(tmp_path)
    ended = run(folder, faults=f"kill driver at step {step} in {phase} after 0.05 s")
    assert ended.returncode == -signal.SIGKILL
    assert run(folder, "--resume").returncode == 0
    assert_equal(undisturbed, folder)


class Started:
    """A run in a process of its own, which the test disturbs from outside."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._log = (folder / "output.txt").open("a")
        self.driver = subprocess.Popen(
            command("run", "tiny.yaml", *options),
            cwd=folder,
            env=environment(),
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def steps(self) -> int:
        """How many steps it has recorded."""
        metrics = self._folder / RUN / "metrics.jsonl"
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    def wait_for(self, steps: int, limit_s: float = 600) -> bool:
        """False when the run ends before it has that many steps."""
        until = time.monotonic() + limit_s
        while self.steps() < steps:
            if self.driver.poll() is not None:
                return False
            assert time.monotonic() < until, f"no step {steps} within {limit_s:g} s"
            time.sleep(0.02)
        return True

    def kill_all(self) -> None:
        """SIGKILL to everything that the run has started, and to itself."""
        for process in [psutil.Process(self.driver.pid), *children_of(self.driver.pid)]:
            process.kill()
        self.driver.wait()


def of_ray(process: psutil.Process) -> bool:
    """Whether it belongs to Ray; what a killed driver has left is nobody's child any more, so all are looked at."""
    try:
        return process.name() in {"raylet", "gcs_server"} or process.name().startswith("ray::")
    except psutil.Error:
        return False


def test_everything_is_killed_at_once_three_times(undisturbed: Path, tmp_path: Path) -> None:
    folder = write_file(tmp_path)
    for steps, delay_s in ((2, 0.0), (4, 0.1), (7, 0.2)):
        running = Started(folder, "--resume")
        assert running.wait_for(steps)
        time.sleep(delay_s)
        running.kill_all()
    assert run(folder, "--resume").returncode == 0
    assert_equal(undisturbed, folder)


def test_twenty_faults_at_random_moments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(5)
    options = ("--resume", "--set", f"steps={LONG_STEPS}")
    quiet, folder = write_file(tmp_path / "quiet"), write_file(tmp_path / "disturbed")
    assert run(quiet, *options).returncode == 0
    started = time.time()
    running, told, descriptors = Started(folder, *options), [], []
    for fault in range(REAL_FAULTS):
        assert running.wait_for((fault + 1) * (LONG_STEPS - 10) // REAL_FAULTS)
        time.sleep(draw.uniform(0, 1.0))
        descriptors.append(psutil.Process(running.driver.pid).num_fds())
        if draw.random() < 0.1:
            running.driver.kill()
            running.driver.wait()
            running = Started(folder, *options)
            told.append("driver KILL")
            continue
        target = draw.choice([p for p in children_of(running.driver.pid) if role_of(p) in ROLES])
        how = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP])
        told.append(f"{role_of(target)} {how.name.removeprefix('SIG')}")
        target.send_signal(how)
    assert running.driver.wait(600) == 0
    time.sleep(10)  # the watchdog of the last driver is the last to go
    left = [process.name() for process in psutil.process_iter() if of_ray(process) and process.create_time() > started]
    with capsys.disabled():
        print(f"\n{len(told)} faults: {', '.join(told)}\nfile descriptors of the driver at each: {descriptors}")
        print(f"processes left: {len(left)}")
    assert left == []
    assert max(descriptors[-5:]) <= max(descriptors[:5]) + 20
    assert_equal(quiet, folder, LONG_STEPS)


def test_a_hundred_and_eighty_faults_with_stand_ins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in_run(tmp_path / "quiet", STAND_IN_STEPS)
    counts = (len(children_of(os.getpid())), psutil.Process().num_fds())
    strikes = random_strikes(6, STAND_IN_STEPS, STAND_IN_FAULTS)
    stand_in_run(tmp_path / "disturbed", STAND_IN_STEPS, strikes)
    time.sleep(10)
    after = (len(children_of(os.getpid())), psutil.Process().num_fds())
    lost = losses_told(tmp_path / "disturbed")
    with capsys.disabled():
        print(
            f"\n{STAND_IN_FAULTS} faults, {lost} losses told; processes and descriptors {counts} before, {after} after"
        )
    assert lost > STAND_IN_FAULTS / 2  # two that hit the same worker, or one that is down, are told once
    assert after[0] <= counts[0] and after[1] <= counts[1] + 20
    assert_equal(tmp_path / "quiet", tmp_path / "disturbed", STAND_IN_STEPS)


def test_mlflow_is_away_for_twenty_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The server is killed after 20 steps and started again after 40: all points are there, and no step took longer."""
    folder, steps = write_file(tmp_path), 60
    server = Server(tmp_path).start()
    try:
        running = Started(folder, "--set", f"steps={steps}", "--set", f"tracking.uri={server.uri}")
        assert running.wait_for(20)
        server.kill()
        assert running.wait_for(40)
        server.start()
        assert running.driver.wait(600) == 0
        output = (folder / "output.txt").read_text()
        assert "is away" in output and "is back" in output
        assert steps_at_mlflow(folder, uri=server.uri) == [list(range(steps))]
    finally:
        server.kill()
    seconds = [row["time/step"] + row["time/record"] for row in rows(folder)]
    away, there = statistics.median(seconds[21:40]), statistics.median(seconds[2:20] + seconds[45:])
    with capsys.disabled():
        print(f"\nmedian step: {there:.3f} s with the server, {away:.3f} s without it: {away / there:.3f} times")
    assert away <= 1.1 * there
