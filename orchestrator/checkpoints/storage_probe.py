"""Tries a storage: `python -m orchestrator.checkpoints.storage_probe STORAGE` says what is wrong with it.

In a process of its own, because what waits for a store that never answers can only be killed.
"""

import os
import sys
from pathlib import Path
from uuid import uuid4

from actors.storage.remote_folder import RemoteFolder, StorageError
from orchestrator.storage_uri import local_folder

PROBE = ".evenkeel-probe-"


def probe(storage: str) -> None:
    """Write, read and delete a small file.

    Raises:
        StorageError, OSError: that cannot be done.
    """
    content = uuid4().hex
    folder = local_folder(storage)
    if folder is None:
        _probe_remote(RemoteFolder(storage) / f"{PROBE}{content}", content.encode())
    else:
        _probe_local(folder / f"{PROBE}{content}", content)


def _probe_remote(file: RemoteFolder, content: bytes) -> None:
    file.write_bytes(content)
    try:
        if file.read_bytes() != content:
            raise StorageError(str(file), "what was written does not come back")
    finally:
        file.delete_file()


def _probe_local(path: Path, content: str) -> None:
    """The folder has to be there: where a mount is missing, making it would fill the disk below."""
    with path.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def _told(storage: str) -> str:
    try:
        probe(storage)
    except StorageError as error:
        return error.reason
    except OSError as error:
        return error.strerror or str(error)
    return ""


if __name__ == "__main__":
    reason = _told(sys.argv[1])
    print(reason, flush=True)
    os._exit(bool(reason))  # at once: the client of a store may wait for its requests first
