"""The watchdog, with ordinary processes in Ray's place."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cluster.watchdog import MARK, guarded

ROOT = Path(__file__).parents[2]
# A driver that starts a process in the session which keeps writing, says where it is, and waits to be killed.
DRIVER = """
import subprocess, sys, time
from cluster.watchdog import guarded
WRITER = '''
import itertools, os, sys
for i in itertools.count():
    folder = f"{sys.argv[1]}/{i % 50}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/file", "w") as file:
        file.write("x" * 1000)
    if i == 50:
        print("writing", flush=True)
'''
with guarded() as scratch:
    child = subprocess.Popen([sys.executable, "-c", WRITER, scratch])
    print(child.pid, scratch, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray that other tests share may be up, with a mark of its own."""
    monkeypatch.setenv(MARK, "")
    monkeypatch.delenv(MARK)


def becomes_true(what: Callable[[], bool], within_s: float = 10.0) -> bool:
    until = time.monotonic() + within_s
    while not what() and time.monotonic() < until:
        time.sleep(0.02)
    return what()


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_what_was_started_in_the_session_is_gone_after_it_and_the_rest_is_not() -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    before = subprocess.Popen(sleeper)
    with guarded() as scratch:
        inside = subprocess.Popen(sleeper)
        (Path(scratch) / "file").touch()
    assert inside.wait(10) != 0
    assert not Path(scratch).exists()
    assert before.poll() is None
    before.kill()
    before.wait()


def test_what_was_started_and_written_is_gone_soon_after_the_driver_was_killed() -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pid, scratch = driver.stdout.readline().split()
    assert driver.stdout.readline() == "writing\n"
    child = psutil.Process(int(pid))
    driver.kill()
    driver.wait()
    assert becomes_true(lambda: gone(child))
    assert becomes_true(lambda: not Path(scratch).exists())
