"""A recorded run that another one may begin with: the same experiment with the same seed under any policy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from actors.storage.remote_folder import StorageError
from orchestrator.checkpoints.fingerprint import differing_fields
from orchestrator.checkpoints.place import Place, place_of, store_at
from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.run.folder import CONFIG, METRICS, stored_config
from orchestrator.run.status import End, RunStatus
from orchestrator.yaml_files import read_mapping
from sweeps.fork.forked_rows import rows_of, whole_lines

# A run may go on with other values of these, but its rows would not be those of a run that began with them.
SAME_ROWS = ("steps", "evaluation", "seeds", "learner", "rollout")
COLLAPSED = b'"stability/collapsed": '  # in the line of the step at which the verdict fell


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What stood in a run's folder when it was read; the run may go on meanwhile.

    Example:
        Source(folder=Path("runs/thresholds/baseline/seed-0"), lines=(b'{"step": 0, "scheduler/lr": 1e-06}',), end=None)
    """

    folder: Path
    lines: tuple[bytes, ...]  # of its metrics
    end: End | None  # how a run with these decisions comes to its end; None while there are steps to come

    @classmethod
    def read(cls, folder: Path, config: ExperimentConfig, seed: int) -> "Source | None":
        """What is in a folder; None when it cannot be read, or holds no run that differs in nothing but the scheduler.

        Args:
            folder: need not be there.
            config: of the run that may begin with it, an arm merged in.
            seed: of that run.
        """
        try:
            stored = ExperimentConfig.model_validate(read_mapping(folder / CONFIG))
            if not _differ_in_scheduler_only(stored.model_dump(mode="json"), stored_config(config, seed)):
                return None
            status = RunStatus.read(folder)  # before the metrics: none come after the end
            lines = whole_lines((folder / METRICS).read_bytes())
        except (OSError, ConfigError, ValidationError):
            return None
        return cls(folder=folder, lines=tuple(lines), end=_end(status, lines, config.steps))

    @property
    def arm(self) -> str:
        """By the folder that all seeds of the arm have in common."""
        return self.folder.parent.name

    def rows(self) -> Iterator[dict[str, Any]]:
        """Its steps from 0 on, read as they are asked for; they end early where a line is no next step's."""
        return rows_of(self.lines, str(self.folder / METRICS))

    def checkpoints(self) -> dict[int, Place]:
        """Its checkpoints now, by step, unread: they may be damaged, or gone by the time that they are used.

        None where nobody can tell.
        """
        try:
            return {size.step: size.path for size in store_at(place_of(self.folder), keep=None).sizes()}
        except (ConfigError, StorageError):
            return {}


def _differ_in_scheduler_only(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    others = [field for field, _, _ in differing_fields(stored, wanted) if field.partition(".")[0] != "scheduler"]
    return not others and all(stored[block] == wanted[block] for block in SAME_ROWS)


def _end(status: RunStatus | None, lines: Sequence[bytes], steps: int) -> End | None:
    if status is None:
        return None
    if status.status == "collapsed" or (status.status == "finished" and len(lines) >= steps):
        return status.status
    # Who watched may have stopped the run for the others' sake, and judge the next one otherwise: only a collapse ends
    # all alike.
    return "stopped" if status.status == "stopped" and lines and COLLAPSED in lines[-1] else None
