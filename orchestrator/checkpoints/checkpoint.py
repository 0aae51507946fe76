"""A checkpoint that was read: every byte of its folder checked before any of it was used."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from actors.storage.remote_folder import RemoteFolder
from actors.storage.remote_state import RemoteState
from orchestrator.checkpoints.manifest import CheckpointDamaged, Manifest
from orchestrator.checkpoints.state import RunState
from orchestrator.config_errors import ConfigError
from orchestrator.yaml_files import mapping_in

LEARNER = "learner"  # the folder in it that the learners fill and read
STATE, CONFIG = "state.json", "config.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A good checkpoint. The learners' files in `path / LEARNER` are for the learners to load.

    Example:
        Checkpoint(path=Path("runs/demo/decay/seed-0/checkpoints/step-000040"), state=state,
                   config={"name": "demo", "steps": 200}, manifest=manifest)
    """

    path: Path | RemoteFolder
    state: RunState
    config: dict[str, Any]  # the resolved one of the run that wrote it
    manifest: Manifest

    @classmethod
    def read_verified(cls, path: Path | RemoteFolder, step: int) -> "Checkpoint":
        """Check all of the folder, then read the driver's part of it; nothing is unpickled.

        Args:
            path: the folder.
            step: that it is of, by its name.

        Raises:
            CheckpointDamaged: with the file, and what is wrong with it.
            StorageError: the object store that it is in cannot be used.
        """
        manifest = Manifest.read_verified(path)
        state, config = _state(path), _config(path)
        if state.step != step:
            raise CheckpointDamaged(f"{STATE}: is of step {state.step}, the folder's name says {step}")
        return cls(path=path, state=state, config=config, manifest=manifest)

    def learner_files(self) -> str:
        """What of it the learners load, as they are told."""
        if isinstance(self.path, Path):
            return str(self.path / LEARNER)
        digest = sha256(self.manifest.contents()[0]).hexdigest()
        return str(RemoteState(folder=self.path / LEARNER, manifest_sha256=digest))


def _state(path: Path | RemoteFolder) -> RunState:
    try:
        return RunState.from_json((path / STATE).read_bytes().decode())
    except (OSError, ValueError) as error:
        raise CheckpointDamaged(f"{STATE}: {error}") from error


def _config(path: Path | RemoteFolder) -> dict[str, Any]:
    try:
        return mapping_in((path / CONFIG).read_bytes(), str(path / CONFIG))
    except OSError as error:
        raise CheckpointDamaged(f"{CONFIG}: {error}") from error
    except ConfigError as error:
        raise CheckpointDamaged(f"{CONFIG}: expected {error.expected}") from error
