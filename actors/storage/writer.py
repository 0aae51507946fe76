"""Writing a rank's part of a checkpoint, to a folder that all ranks share or to an object store; and why it failed."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult

from actors.messages import SavedFile
from actors.storage.reader import METADATA
from actors.storage.remote_folder import RemoteFolder, StorageError
from actors.storage.scratch import scratch_folder


class CheckpointNotWritten(RuntimeError):
    """A checkpoint is not written. `reason` says why, `disk_full` whether for want of space or of quota."""

    def __init__(self, reason: str, disk_full: bool = False) -> None:
        super().__init__(f"checkpoint not written: {reason}")
        self.reason = reason
        self.disk_full = disk_full

    def __reduce__(self) -> tuple[type["CheckpointNotWritten"], tuple[str, bool]]:
        return CheckpointNotWritten, (self.reason, self.disk_full)


class LocalWriter(dcp.FileSystemWriter):
    """Writes a file per rank, in one thread: torch loses the errors of further threads."""

    def __init__(self, folder: Path) -> None:
        # Without copying ahead, which is for tensors on a GPU and would wait for the training step there.
        super().__init__(folder, thread_count=1, per_thread_copy_ahead=0, overwrite=False)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> torch.futures.Future[list[WriteResult]]:
        try:
            return super().write_data(plan, planner)
        except Exception as error:  # goes to the other ranks as a pickle, which leaves out what lies under an error
            raise CheckpointNotWritten(*reason_of(error)) from error

    def files(self, rank: int) -> tuple[SavedFile, ...]:
        """This rank's files once they are written; they and their names are then safe from a loss of power."""
        folder = Path(self.path)
        paths = [*sorted(folder.glob(f"__{rank}_*")), *([folder / METADATA] if rank == 0 else [])]
        files = tuple(_hashed(path) for path in paths)
        for directory in (folder, folder.parent):
            handle = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        return files


class RemoteWriter(LocalWriter):
    """Writes a file per rank to a scratch folder and from there to the store, before the ranks agree that all is well.

    So a rank whose file does not arrive fails them all.
    """

    def __init__(self, folder: RemoteFolder, scratch: Path) -> None:
        """Args: folder: of the learners, in a checkpoint that is not complete. scratch: empty, this rank's own."""
        super().__init__(scratch / folder.name)
        self._folder = folder
        self._sent: list[SavedFile] = []

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> torch.futures.Future[list[WriteResult]]:
        """As the base class says."""
        done = super().write_data(plan, planner)
        done.wait()
        for path in sorted(Path(self.path).glob("__*")):
            self._send(path)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """As the base class says; on rank 0 only."""
        super().finish(metadata, results)
        self._send(Path(self.path) / METADATA)

    def files(self, rank: int) -> tuple[SavedFile, ...]:
        """This rank's files, all of which the store has."""
        return tuple(self._sent)

    def _send(self, path: Path) -> None:
        try:
            self._sent.append((self._folder / path.name).upload(path, f"{self._folder.name}/{path.name}"))
            path.unlink()
        except (StorageError, OSError) as error:
            raise CheckpointNotWritten(*reason_of(error)) from error


@contextmanager
def writer_to(folder: Path | RemoteFolder) -> Iterator[LocalWriter]:
    """A writer of the learners' folder; what it needs of the local disk is gone afterwards."""
    if isinstance(folder, Path):
        yield LocalWriter(folder)
        return
    with scratch_folder() as scratch:
        yield RemoteWriter(folder, scratch)


def reason_of(error: BaseException) -> tuple[str, bool]:
    """What went wrong, in one line, on the first of the ranks that failed; whether a disk or a quota is full."""
    if isinstance(error, CheckpointNotWritten):
        return error.reason, error.disk_full
    if isinstance(error, CheckpointException):
        reasons = {rank: reason_of(failure) for rank, (failure, _) in sorted(error.failures.items())}
        rank, (first, _) = next(iter(reasons.items()))
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return f"rank {rank}{more}: {first}", any(full for _, full in reasons.values())
    if isinstance(error, StorageError):
        return error.reason, False
    # torch's zip writer says nothing of the disk: the system's error lies under its own.
    under: BaseException | None = error
    while under is not None and not isinstance(under, OSError):
        under = under.__cause__ or under.__context__
    cause = under or error
    disk_full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{type(cause).__name__}: {cause}".partition("\n")[0], disk_full


def _hashed(path: Path) -> SavedFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())  # once more: DCP syncs .metadata before the end of it has left Python's buffer
        size = os.fstat(file.fileno()).st_size
    return SavedFile(name=f"{path.parent.name}/{path.name}", num_bytes=size, sha256=digest)
