"""The lock on a run's folder: one process at a time works in it, and one that dies in any way has let go of it."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.config_errors import MISSING, ConfigError

LOCK = ".lock"
HOLDER_BYTES = 512
SOMEBODY = "another process"
# `holder` holds the lock itself for an instant, so that once is not enough to know.
ATTEMPTS, PAUSE_S = 5, 0.02

_held: set[int] = set()  # descriptors of the locks of this process


class RunInUse(ConfigError):
    """Another process works in this folder."""

    def __init__(self, folder: Path, holder: str) -> None:
        """Args: folder: of the run. holder: who has it, as in `process 4711 on host node-3`."""
        super().__init__(str(folder), "", MISSING, "a run that no other process is at work on")
        self.args = (f"{folder}: is in use by {holder}; wait for its end, or end it",)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder. The file `.lock` in it stays, and says who took the lock last.

    The kernel ties the lock to the open file and takes it back with the last descriptor of it, SIGKILL or not. No child
    has one: the descriptor is closed on exec, and `_let_go` closes it in those that are forked without.

    Args:
        folder: there, and on a file system that has locks.

    Raises:
        RunInUse: somebody has it, this very process not excepted.
        ConfigError: the file cannot be made or locked.
    """
    try:
        lock = _acquire(folder)
    except OSError as error:
        raise ConfigError(str(folder / LOCK), "", MISSING, f"a file that can be locked ({error.strerror})") from None
    try:
        yield
    finally:
        _release(lock)


def holder(folder: Path) -> str | None:
    """Who works in this folder, as in `process 4711 on host node-3`; None when nobody does. Nothing is made there.

    Raises:
        OSError: the lock's file is there and cannot be opened, or the file system has no locks.
    """
    try:
        lock = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written(lock)
    finally:
        os.close(lock)
    return None


def is_locked(folder: Path) -> bool:
    """Whether a process works in this folder; raises as `holder` does."""
    return holder(folder) is not None


def _acquire(folder: Path) -> int:
    """The descriptor of a lock that is ours."""
    path, found = folder / LOCK, SOMEBODY
    for _ in range(ATTEMPTS):
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        _held.add(lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(lock, path):
                _write(lock, f"process {os.getpid()} on host {socket.gethostname()}")
                return lock
        except BlockingIOError:
            found = _written(lock)
        except BaseException:
            _release(lock)
            raise
        _release(lock)
        time.sleep(PAUSE_S)
    raise RunInUse(folder, found)


def _is_at(lock: int, path: Path) -> bool:
    """Whether the open file is still the one of that name: the folder may have been moved aside or deleted since."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(path))
    except FileNotFoundError:
        return False


def _write(lock: int, text: str) -> None:
    with suppress(OSError):  # a full disk must not keep anybody from deleting what fills it
        os.ftruncate(lock, 0)
        os.pwrite(lock, text.encode(), 0)


def _written(lock: int) -> str:
    return os.pread(lock, HOLDER_BYTES, 0).decode(errors="replace") or SOMEBODY


def _release(lock: int) -> None:
    if lock in _held:  # else this is a forked child, which has closed it
        _held.discard(lock)
        os.close(lock)


def _let_go() -> None:
    """In a forked child: closing its copy leaves the parent's lock alone, keeping it would outlive the parent."""
    while _held:
        with suppress(OSError):
            os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)
