"""evenkeel submit as a user types it, up to what is sent; and what follows, with a cluster that only seems to be."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from cluster.submit import JobClient, JobEnd, JobOrder
from sweeps import cli, submit_cli
from sweeps.submit_cli import INTERRUPTED

ADDRESS = ("--address", "http://head:8265")
JOB = "raysubmit_1"
TINY = """\
name: tiny
model: {path: embedded}
task: {kind: arithmetic, digits: 3}
rollout: {workers: 1, prompts_per_step: 4, group_size: 4, max_response_tokens: 32}
scheduler: {kind: constant, lr: 1.0e-4}
steps: 4
arms: {baseline: {}}
"""
Command = Callable[..., tuple[int, str, str]]


class FakeClient:
    """A cluster that takes every job, and lets it print one line and end."""

    def __init__(self, end: JobEnd, interrupts: int = 0) -> None:
        self.end = end
        self.interrupts = interrupts  # so often it is interrupted before the job ends
        self.stopped: list[str] = []

    def follow(self, job: str, tell: Callable[[str], None]) -> JobEnd:
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        tell("step 4/4\n")
        return self.end

    def stop(self, job: str) -> None:
        self.stopped.append(job)


class Desk:
    """What was handed in, and what became of it."""

    def __init__(self) -> None:
        self.orders: list[JobOrder] = []
        self.client = FakeClient(JobEnd(state="succeeded", exit_code=0, message=""))

    def hand_in(self, address: str, order: JobOrder) -> tuple[JobClient, str]:
        assert Path(order.package).is_file()
        self.orders.append(order)
        return cast(JobClient, self.client), JOB


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk()
    monkeypatch.setattr(submit_cli, "_handed_in", made.hand_in)
    return made


@pytest.fixture
def submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `evenkeel submit` in a folder with tiny.yaml; exit code, standard output and error."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("EVENKEEL_GIT_COMMIT", "0f3a")
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evenkeel", "submit", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


def test_the_command_is_handed_in_as_it_was_typed(desk: Desk, submit: Command, tmp_path: Path) -> None:
    options = ("--set", "steps=2", "--arm", "baseline", "--set", "name=x # y", "--resume", "--seed", "3")
    assert submit("run", *options, "tiny.yaml", *ADDRESS)[0] == 0
    [order] = desk.orders
    expected = "--arm baseline --seed 3 --set steps=2 --set 'name=x # y'"
    assert order.entrypoint == f"python -m sweeps run tiny.yaml {expected} --runs {tmp_path / 'runs'} --resume"
    assert (order.cpus, dict(order.labels)) == (1.0, {})
    assert order.env_vars == {"COLUMNS": "120", "EVENKEEL_GIT_COMMIT": "0f3a"}
    assert not Path(order.package).exists()  # any more


def test_runs_are_kept_where_they_would_be_here_or_as_is_said(desk: Desk, submit: Command, tmp_path: Path) -> None:
    _, out, _ = submit("compare", "tiny.yaml", *ADDRESS)
    assert f"runs are kept in {tmp_path / 'runs'}" in out
    submit("compare", str(tmp_path / "tiny.yaml"), *ADDRESS, "--runs", "/shared/runs")
    assert desk.orders[1].entrypoint == "python -m sweeps compare tiny.yaml --runs /shared/runs"


def test_the_driver_goes_where_it_shall(desk: Desk, submit: Command) -> None:
    submit("run", "tiny.yaml", *ADDRESS, "--driver-cpus", "0.5", "--driver-label", "a=b", "--driver-label", "c=!d")
    assert (desk.orders[0].cpus, desk.orders[0].labels) == (0.5, {"a": "b", "c": "!d"})


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        (JobEnd(state="succeeded", exit_code=0, message=""), 0, "raysubmit_1: succeeded, exit code 0"),
        (JobEnd(state="failed", exit_code=2, message="as told"), 2, "raysubmit_1: failed, exit code 2"),
        (JobEnd(state="failed", exit_code=None, message="no\nnode"), 1, "raysubmit_1: failed: no node"),
        (JobEnd(state="stopped", exit_code=None, message="on purpose"), INTERRUPTED, "raysubmit_1: stopped"),
    ],
)
def test_the_exit_code_is_the_drivers(desk: Desk, submit: Command, end: JobEnd, code: int, told: str) -> None:
    desk.client.end = end
    assert submit("run", "tiny.yaml", *ADDRESS)[0] == code
    code, out, err = submit("run", "tiny.yaml", *ADDRESS)
    lines = out.splitlines()
    assert lines[0].startswith("raysubmit_1: python -m sweeps run tiny.yaml ")
    assert lines[-2:] == ["step 4/4", told]
    assert err == ""


def test_ctrl_c_leaves_the_job_running_and_says_how_to_go_on(desk: Desk, submit: Command) -> None:
    desk.client.interrupts = 1
    code, out, err = submit("run", "tiny.yaml", *ADDRESS)
    assert (code, err, desk.client.stopped) == (INTERRUPTED, "", [])
    logs, stop = (f"ray job {verb} --address http://head:8265" for verb in ("logs", "stop"))
    assert out.splitlines()[-1] == f"raysubmit_1 goes on: {logs} --follow raysubmit_1, or {stop} raysubmit_1"


def test_ctrl_c_stops_the_job_if_it_shall_and_tells_of_its_end(desk: Desk, submit: Command) -> None:
    desk.client = FakeClient(JobEnd(state="stopped", exit_code=None, message="on purpose"), interrupts=1)
    code, out, err = submit("run", "tiny.yaml", *ADDRESS, "--stop-on-interrupt")
    assert (code, err, desk.client.stopped) == (INTERRUPTED, "", [JOB])
    assert out.splitlines()[-2:] == ["step 4/4", "raysubmit_1: stopped"]


def test_who_does_not_follow_is_back_at_once(desk: Desk, submit: Command) -> None:
    desk.client.interrupts = 1  # would be an error
    code, out, _ = submit("run", "tiny.yaml", *ADDRESS, "--no-follow")
    assert code == 0
    assert out.splitlines()[-1].startswith("raysubmit_1 goes on: ")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", "tiny.yaml"), "Missing option '--address'"),
        (("run", "tiny.yaml", "--address", "head:8265"), "--address: got 'head:8265', expected the URL of a cluster's"),
        (("run", "tiny.yaml", "--address", "http://"), "--address: got 'http://', expected the URL of a cluster's"),
        (("demo", "tiny.yaml", *ADDRESS), "submit: got 'demo', expected one of: run, compare, sweep"),
        (("run", *ADDRESS), "Missing argument 'E.yaml'"),
        (("compare", "tiny.yaml", *ADDRESS, "--arm", "x"), "No such option: --arm"),
        (("run", "tiny.yaml", *ADDRESS, "--seed", "x"), "Invalid value for '--seed'"),
        (("run", "tiny.yaml", *ADDRESS, "--arm", "x"), "tiny.yaml: arms: got 'x', expected one of: baseline"),
        (("run", "tiny.yaml", *ADDRESS, "--driver-label", "x"), "--driver-label: got 'x', expected KEY=VALUE"),
        (("run", "tiny.yaml", "--address", "http://127.0.0.1:1"), "--address: "),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(submit: Command, arguments: tuple[str, ...], expected: str) -> None:
    code, out, err = submit(*arguments)
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith(f"evenkeel: {expected}")


def test_too_much_to_send_is_told_with_the_way_out(
    submit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.package.MOST_BYTES", 2**20)
    (tmp_path / "weights.bin").write_bytes(bytes(2**21))
    code, _, err = submit("run", "tiny.yaml", *ADDRESS)
    assert code == 2
    assert f"evenkeel: {tmp_path}: expected no more than 1 MiB to send: name what the cluster shall not get" in err
    assert "in a .rayignore there; largest: weights.bin (2 MiB)" in err
