"""Sees to it that no process of a private Ray outlives the driver, however the driver ends.

Ray's own processes watch each other, but some take a minute to notice that the driver was killed. The watchdog is a
process of its own: it holds one end of a pipe that only the driver keeps open, remembers what bears the driver's mark
and what that starts, and kills all of it when the pipe closes.
"""

import os
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

MARK = "EVENKEEL_SESSION"  # environment variable that every process started in the session inherits
LOOK_EVERY_S = 1.0
EXIT_TIMEOUT_S = 10.0


@contextmanager
def guarded() -> Iterator[str]:
    """Whatever is started in the with-block is gone soon after it, or after this process has died in it.

    So is the folder that it yields, which is for the temporary files of what is started.
    """
    mark = secrets.token_hex(8)
    scratch = tempfile.mkdtemp(prefix="evenkeel-")
    # A session of its own: Ctrl-C in a terminal reaches the driver, not the watchdog.
    watchdog = subprocess.Popen(
        [sys.executable, __file__, mark, scratch], stdin=subprocess.PIPE, start_new_session=True
    )
    os.environ[MARK] = mark
    try:
        yield scratch
    finally:
        del os.environ[MARK]
        assert watchdog.stdin is not None
        watchdog.stdin.close()
        try:
            watchdog.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            watchdog.kill()


def marked(mark: str, known: set[psutil.Process]) -> set[psutil.Process]:
    """All processes that were started with that mark, or by one of `known`.

    Both, because a process that sets its own title overwrites the environment that others can read.
    """
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark or process.parent() in known | found:
                found.add(process)
        except psutil.Error:  # not ours, or gone by now
            continue
    return found


def watch(mark: str, scratch: str) -> None:
    """Remember marked processes until standard input closes, then kill those that are left, and remove the folder."""
    known: set[psutil.Process] = set()
    while not select.select([sys.stdin], [], [], LOOK_EVERY_S)[0]:
        known |= marked(mark, known)
    for process in known | marked(mark, known):
        try:
            process.kill()  # psutil makes sure that the number has not gone to another process
        except psutil.Error:
            continue
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    watch(*sys.argv[1:])
