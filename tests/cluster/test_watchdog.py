"""The watchdog, with ordinary processes in Ray's place."""

import subprocess
import sys
import time
from pathlib import Path

import psutil

from cluster.watchdog import guarded

ROOT = Path(__file__).parents[2]
# A driver that starts a process in the session, says its number, and waits to be killed.
DRIVER = """
import subprocess, sys, time
from cluster.watchdog import guarded
with guarded():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    time.sleep(600)
"""


def gone(process: psutil.Process, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_what_was_started_in_the_session_is_gone_after_it_and_the_rest_is_not() -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    before = subprocess.Popen(sleeper)
    with guarded():
        inside = subprocess.Popen(sleeper)
    assert inside.wait(10) != 0
    assert before.poll() is None
    before.kill()
    before.wait()


def test_what_was_started_is_gone_soon_after_the_driver_was_killed() -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    child = psutil.Process(int(driver.stdout.readline()))
    driver.kill()
    driver.wait()
    assert gone(child, within_s=10)
