"""Reading a rank's part of a checkpoint, from a folder that all ranks share or from an object store.

Nothing that came from a store is unpickled before it was compared with the manifest, whose digest the driver gives.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.futures import Future

from actors.storage.remote_folder import is_remote
from actors.storage.remote_state import RemoteState
from actors.storage.scratch import scratch_folder

METADATA = ".metadata"


class RemoteReader(dcp.FileSystemReader):
    """Reads from a scratch folder, into which it brings the files that are asked for, and only as they were written."""

    def __init__(self, state: RemoteState, scratch: Path) -> None:
        """Bring the metadata.

        Args:
            state: which; one that was verified.
            scratch: empty.

        Raises:
            RuntimeError: it is not there, or is not what was written.
            StorageError, OSError: the store, or the disk, refuses.
        """
        super().__init__(scratch)
        self._scratch = scratch
        self._folder = state.folder
        self._expected = state.files()
        self._fetch(METADATA)

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """As the base class says, for files that are brought first."""
        for name in {self.storage_data[item.storage_index].relative_path for item in plan.items}:
            self._fetch(name)
        return super().read_data(plan, planner)

    def _fetch(self, name: str) -> None:
        full_name = f"{self._folder.name}/{name}"
        expected = self._expected.get(full_name)
        try:
            found = expected and (self._folder / name).download(self._scratch / name, full_name)
        except FileNotFoundError:
            found = None
        if found is None or found != expected:
            (self._scratch / name).unlink(missing_ok=True)
            raise RuntimeError(f"{self._folder}: {name}: is not what the manifest says")


@contextmanager
def reader_of(folder: str | Path) -> Iterator[dcp.FileSystemReader]:
    """A reader of the learners' folder; what it needs of the local disk is gone afterwards. Errors as `RemoteReader`.

    Args:
        folder: a path, or what `RemoteState` writes.
    """
    if not is_remote(str(folder)):
        yield dcp.FileSystemReader(folder)
        return
    with scratch_folder() as scratch:
        yield RemoteReader(RemoteState.parse(str(folder)), scratch)
