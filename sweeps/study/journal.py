"""The journal of a study: Optuna's file of one line per change, appended to by one driver at a time."""

import fcntl
import os
from pathlib import Path

from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.storages.journal._file import BaseJournalFileLock

JOURNAL = "study.journal"  # beside the trials, where no other storage is named
TAIL_BYTES = 1 << 16


def journal_storage(folder: Path) -> JournalStorage:
    """Optuna's storage in a file of a folder; what a crash or a full disk has left of a last line is cut off.

    Args:
        folder: of the study; made if it is not there.

    Raises:
        OSError: the file cannot be made, read or locked.
        ValueError: it holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / JOURNAL
    lock = JournalLock(path)
    if path.exists():
        lock.acquire()
        lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


class JournalLock(BaseJournalFileLock):
    """The kernel's lock on the journal itself. Optuna's own ones outlive a killed driver for half a minute.

    Whoever has it finds the file whole: a line that was begun would otherwise become one with the next.

    lock = JournalLock(folder / JOURNAL)
    lock.acquire()
    ...
    lock.release()
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = -1

    def acquire(self) -> bool:
        """Wait for the lock; True. OSError when the file cannot be locked."""
        lock = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _cut_to_whole_lines(lock)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        return True

    def release(self) -> None:
        """Let go of it."""
        lock, self._lock = self._lock, -1
        try:
            fcntl.flock(lock, fcntl.LOCK_UN)  # else a child that was forked meanwhile would keep it
        finally:
            os.close(lock)


def _cut_to_whole_lines(file: int) -> None:
    size = end = os.fstat(file).st_size
    while end:
        start = max(0, end - TAIL_BYTES)
        if (found := os.pread(file, end - start, start).rfind(b"\n")) >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
