"""A checkpoint of another run, for a run of its own: the learners' files linked, the driver's part written anew."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.messages import SavedFile
from orchestrator.checkpoints.checkpoint import LEARNER, STATE
from orchestrator.checkpoints.manifest import CheckpointDamaged, Manifest
from orchestrator.checkpoints.state import RunState
from orchestrator.checkpoints.store import CheckpointStore
from sweeps.fork.links import link_files


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointLink:
    """A good checkpoint that stays good: whoever it belongs to removes it under its own name only.

    link = CheckpointLink.of(Path("baseline/seed-0/checkpoints/step-000040"), 40, Path(".seed-0.forking/source"))
    link.move_to(Path(".seed-0.forking/checkpoints"), replace(link.state, mlflow_run_id=None), config)
    """

    folder: Path
    state: RunState
    files: tuple[SavedFile, ...]  # of the learners

    @classmethod
    def of(cls, checkpoint: Path, step: int, folder: Path) -> "CheckpointLink":
        """Link it, and check then what was linked.

        Args:
            checkpoint: its folder; its run may be removing it just now.
            step: that it is of.
            folder: to be made, on the file system where it is to stay.

        Raises:
            CheckpointDamaged: it is not good, or not there any more.
            OSError: the disk refuses.
        """
        try:
            link_files(checkpoint, folder)
        except FileNotFoundError as error:
            raise CheckpointDamaged(f"{error.filename}: is missing") from error
        manifest = Manifest.read_verified(folder)
        try:
            state = RunState.from_json((folder / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointDamaged(f"{STATE}: {error}") from error
        if state.step != step:
            raise CheckpointDamaged(f"{STATE}: is of step {state.step}, the folder's name says {step}")
        files = tuple(file for file in manifest.files if file.name.startswith(f"{LEARNER}/"))
        return cls(folder=folder, state=state, files=files)

    def move_to(self, checkpoints: Path, state: RunState, config: Mapping[str, Any]) -> None:
        """Make it a checkpoint among those of another run; nothing is left at `folder`.

        Args:
            checkpoints: folder of that run's checkpoints.
            state: of that run after the same step.
            config: `stored_config` of that run.

        Raises:
            OSError: the disk refuses.
        """
        store = CheckpointStore(checkpoints, keep=None)
        (self.folder / LEARNER).rename(store.begin(state.step) / LEARNER)
        store.commit(state, config, self.files)
        shutil.rmtree(self.folder)
