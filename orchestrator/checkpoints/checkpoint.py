"""A checkpoint that was read: every byte of its folder checked before any of it was used."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.checkpoints.manifest import CheckpointDamaged, Manifest
from orchestrator.checkpoints.state import RunState
from orchestrator.config_errors import ConfigError
from orchestrator.yaml_files import read_mapping

LEARNER = "learner"  # the folder in it that the learners fill and read
STATE, CONFIG = "state.json", "config.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A good checkpoint. The learners' files in `path / LEARNER` are for the learners to load.

    Example:
        Checkpoint(path=Path("runs/demo/decay/seed-0/checkpoints/step-000040"), state=state,
                   config={"name": "demo", "steps": 200}, fingerprint="5e884898da280471...")
    """

    path: Path
    state: RunState
    config: dict[str, Any]  # the resolved one of the run that wrote it
    fingerprint: str  # of that config, by the version that wrote it

    @classmethod
    def read_verified(cls, path: Path, step: int) -> "Checkpoint":
        """Check all of the folder, then read the driver's part of it; nothing is unpickled.

        Args:
            path: the folder.
            step: that it is of, by its name.

        Raises:
            CheckpointDamaged: with the file, and what is wrong with it.
        """
        manifest = Manifest.read_verified(path)
        state, config = _state(path), _config(path)
        if state.step != step:
            raise CheckpointDamaged(f"{STATE}: is of step {state.step}, the folder's name says {step}")
        return cls(path=path, state=state, config=config, fingerprint=manifest.fingerprint)


def _state(path: Path) -> RunState:
    try:
        return RunState.from_json((path / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointDamaged(f"{STATE}: {error}") from error


def _config(path: Path) -> dict[str, Any]:
    try:
        return read_mapping(path / CONFIG)
    except ConfigError as error:
        raise CheckpointDamaged(f"{CONFIG}: expected {error.expected}") from error
