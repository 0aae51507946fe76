"""A folder of this process's own on the local disk, gone with the process however that ends."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = f"evenkeel-checkpoint-{os.getuid()}-"
GRACE_S = 60.0  # for a folder that was made and is about to be locked


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder where TMPDIR points, removed at the end; so is what killed processes have left there.

    Raises:
        OSError: it cannot be made.
    """
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep() -> None:
    for left_over in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another process is faster, or at work in it
            if time.time() - left_over.lstat().st_mtime > GRACE_S:
                lock = os.open(left_over, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left_over, ignore_errors=True)
                finally:
                    os.close(lock)
