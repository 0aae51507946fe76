"""A checkpoint of another run, for one of its own: the learners' files linked or copied, the driver's written anew."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.messages import SavedFile
from actors.storage.remote_folder import RemoteFolder
from orchestrator.checkpoints.checkpoint import LEARNER, Checkpoint
from orchestrator.checkpoints.manifest import CheckpointDamaged
from orchestrator.checkpoints.place import Place, Store
from orchestrator.checkpoints.state import RunState
from sweeps.fork.links import link_files


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointLink:
    """A good checkpoint. On a disk it stays good: whoever it belongs to removes it under its own name only.

    link = CheckpointLink.of(Path("baseline/seed-0/checkpoints/step-000040"), 40, Path(".seed-0.forking/source"))
    link.move_to(store, replace(link.state, mlflow_run_id=None), config)
    """

    folder: Place  # of the links; in an object store, which has none, of the checkpoint itself
    state: RunState
    files: tuple[SavedFile, ...]  # of the learners

    @classmethod
    def of(cls, checkpoint: Place, step: int, folder: Path) -> "CheckpointLink":
        """Link it, and check then what was linked.

        Args:
            checkpoint: its folder; its run may be removing it just now.
            step: that it is of.
            folder: to be made for the links, best on the file system where they are to stay.

        Raises:
            CheckpointDamaged: it is not good, or not there any more.
            StorageError: the object store that it is in cannot be used.
            OSError: the disk refuses.
        """
        place: Place = checkpoint
        if isinstance(checkpoint, Path):
            try:
                link_files(checkpoint, folder)
            except FileNotFoundError as error:
                raise CheckpointDamaged(f"{error.filename}: is missing") from error
            place = folder
        found = Checkpoint.read_verified(place, step)
        files = tuple(file for file in found.manifest.files if file.name.startswith(f"{LEARNER}/"))
        return cls(folder=place, state=found.state, files=files)

    def move_to(self, store: Store, state: RunState, config: Mapping[str, Any]) -> None:
        """Make it a checkpoint among those of another run; no links are left.

        Args:
            store: of that run's checkpoints.
            state: of that run after the same step.
            config: `stored_config` of that run.

        Raises:
            CheckpointDamaged: it has vanished from the object store that it was in.
            StorageError: an object store cannot be used.
            OSError: the disk refuses.
        """
        begun = store.begin(state.step)
        if isinstance(self.folder, Path) and isinstance(begun, Path):
            shutil.move(self.folder / LEARNER, begun / LEARNER)  # copies to another file system
        else:
            for file in self.files:
                _copy(self.folder / file.name, begun / file.name, file)
        store.commit(state, config, self.files)
        if isinstance(self.folder, Path):
            shutil.rmtree(self.folder)


def _copy(source: Place, target: Place, expected: SavedFile) -> None:
    """Have a file there, too, one of the two places at least being in an object store."""
    found = expected
    try:
        if isinstance(source, Path):
            assert isinstance(target, RemoteFolder)
            found = target.upload(source, expected.name)
        elif isinstance(target, Path):
            target.parent.mkdir(exist_ok=True)
            found = source.download(target, expected.name)
        else:
            source.copy_to(target)
    except FileNotFoundError:
        raise CheckpointDamaged(f"{expected.name}: is missing") from None
    if found != expected:
        raise CheckpointDamaged(f"{expected.name}: its content has changed (sha256)")
