"""The lock on a run's folder: one at a time, gone with its process however that ends, kept by no child."""

import fcntl
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.config_errors import ConfigError
from orchestrator.run.lock import LOCK, RunInUse, holder, is_locked, run_lock

ROOT = Path(__file__).resolve().parents[3]
SOON_S = 20.0
HOLD = """
import os, sys, time
from pathlib import Path
from orchestrator.run.lock import run_lock
with run_lock(Path(sys.argv[1])):
    {started}
    print("held", flush=True)
    time.sleep(600)
"""
LOOK = """
import sys
from pathlib import Path
from orchestrator.run.lock import is_locked
while True:
    is_locked(Path(sys.argv[1]))
"""
FORK = "if (child := os.fork()) == 0: os.execlp('sleep', 'sleep', '600') if {execs} else time.sleep(600)"
Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts processes that hold a folder's lock, in groups of their own; whatever is left of them is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path, then: str = "pass") -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD.format(started=then), str(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until_free(folder: Path) -> None:
    until = time.monotonic() + SOON_S
    while is_locked(folder):
        assert time.monotonic() < until, "the lock is still held"
        time.sleep(0.01)


def test_a_lock_is_held_for_as_long_as_the_block_lasts(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with run_lock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    assert (tmp_path / LOCK).exists()
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path):
        _ = 1 / 0
    assert not is_locked(tmp_path)


def test_whoever_comes_second_is_told_who_has_it(tmp_path: Path, hold: Hold) -> None:
    process = hold(tmp_path)
    who = rf"process {process.pid} on host \S+"
    assert re.fullmatch(who, holder(tmp_path) or "")
    with pytest.raises(RunInUse, match=rf"^{re.escape(str(tmp_path))}: is in use by {who}; [^\n]+$") as caught:
        run_lock(tmp_path).__enter__()
    assert isinstance(caught.value, ConfigError)


def test_this_process_cannot_take_it_twice_and_does_not_lose_it_by_trying(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        with pytest.raises(RunInUse, match=f"process {os.getpid()} on host"), run_lock(tmp_path):
            pass
        assert is_locked(tmp_path)


def test_the_lock_dies_with_a_process_that_is_killed(tmp_path: Path, hold: Hold) -> None:
    process = hold(tmp_path)
    process.kill()
    process.wait()
    assert not is_locked(tmp_path)
    with run_lock(tmp_path):
        assert holder(tmp_path) == f"process {os.getpid()} on host {os.uname().nodename}"


@pytest.mark.parametrize(
    "child",
    [
        FORK.format(execs=False),
        FORK.format(execs=True),
        "import subprocess; subprocess.Popen(['sleep', '600'], close_fds=False)",
        "import multiprocessing as m; m.get_context('fork').Process(target=time.sleep, args=(600,)).start()",
        "import multiprocessing as m; m.get_context('spawn').Process(target=time.sleep, args=(600,)).start()",
    ],
)
def test_children_that_outlive_the_holder_do_not_keep_the_lock(tmp_path: Path, hold: Hold, child: str) -> None:
    process = hold(tmp_path, then=child)
    assert is_locked(tmp_path)
    process.kill()
    process.wait()
    os.killpg(process.pid, 0)  # the child lives
    wait_until_free(tmp_path)


def test_a_forked_child_that_leaves_the_block_takes_the_lock_from_nobody(tmp_path: Path) -> None:
    parent = os.getpid()
    with run_lock(tmp_path):
        child = os.fork()
        if child == 0:
            files = [
                os.open(os.devnull, os.O_RDONLY) for _ in range(9)
            ]  # one of them gets the number that the lock had
        else:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert is_locked(tmp_path)
    if os.getpid() != parent:
        with suppress(OSError):
            os._exit(len([os.fstat(file) for file in files]) - 9)
        os._exit(1)


def test_children_of_a_process_that_goes_on_leave_its_lock_alone(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        forked = multiprocessing.get_context("fork").Process(target=os.getpid)
        forked.start()
        forked.join()
        assert is_locked(tmp_path)


def test_looking_makes_nothing(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert not is_locked(tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []


def test_those_who_only_look_keep_nobody_out(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    looking = [subprocess.Popen([sys.executable, "-c", LOOK, str(tmp_path)], cwd=ROOT) for _ in range(2)]
    try:
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            with run_lock(tmp_path):
                pass
    finally:
        for process in looking:
            process.kill()
            process.wait()


def test_a_lock_of_a_folder_that_was_moved_aside_does_not_count_for_the_new_one(tmp_path: Path) -> None:
    run = tmp_path / "seed-0"
    run.mkdir()
    with run_lock(run):
        run.rename(tmp_path / "seed-0.old-1")
        run.mkdir()
        assert not is_locked(run)
        with run_lock(run):
            assert is_locked(run)
            assert is_locked(tmp_path / "seed-0.old-1")


def test_a_folder_that_is_moved_aside_while_its_lock_is_taken_is_left_for_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, aside = tmp_path / "seed-0", tmp_path / "seed-0.old-1"
    run.mkdir()
    flock = fcntl.flock

    def move_first(lock: int, operation: int) -> None:
        if not aside.exists():
            run.rename(aside)
            run.mkdir()
        flock(lock, operation)

    monkeypatch.setattr(fcntl, "flock", move_first)
    with run_lock(run):
        assert is_locked(run)
        assert not is_locked(aside)


def test_a_folder_that_cannot_be_locked_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.lock: expected a file that can be locked \(No such file or directory\)$"):
        run_lock(tmp_path / "gone").__enter__()
    (tmp_path / LOCK).mkdir()
    with pytest.raises(ConfigError, match=r"a file that can be locked \(Is a directory\)$"):
        run_lock(tmp_path).__enter__()
