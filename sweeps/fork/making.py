"""Making the folder of a run that begins with the steps of another: there in one go, or not at all."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from actors.storage.remote_folder import StorageError
from orchestrator.checkpoints.manifest import CheckpointDamaged
from orchestrator.checkpoints.place import POINTER, Place, place_of, store_at
from orchestrator.checkpoints.store import sync
from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.run.folder import RunFolderFull
from sweeps.fork.contents import BeginningGone, fill
from sweeps.fork.fork import Fork
from sweeps.fork.plan import Plan


def make_fork(
    plan: Plan | None,
    folder: Path,
    config: ExperimentConfig,
    seed: int,
    passed_over: Callable[[Place, str], None] = lambda path, reason: None,
) -> Fork | None:
    """Make a run's folder, from which the run goes on as one of its own that was interrupted; or which is over already.

    It is built under a hidden name beside its own and renamed. What an earlier try that was killed has left there is
    removed, also when there is nothing to fork from.

    Args:
        plan: of `best_source`. Beginnings that turn out to be no good are passed over for the next best.
        folder: of the run, not there yet or empty.
        config: of the run, an arm merged in.
        seed: of the run.
        passed_over: is told of each checkpoint or run that could not be used, and why.

    Returns:
        None when the run has to begin at its beginning: nothing was made.

    Raises:
        StorageError: the object store that its checkpoints go to cannot be used; no folder was made.
        RunFolderFull: the disk refuses, or there is something at `folder`; nothing was made.
    """
    building = folder.with_name(f".{folder.name}.forking")
    try:
        _undo(building)
        if plan is None:
            return None
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        for beginning in plan.beginnings:
            building.mkdir(parents=True)
            try:
                fork = fill(building, beginning, config, seed)
            except (BeginningGone, CheckpointDamaged) as error:
                passed_over(beginning.checkpoint or beginning.source, str(error))
                _undo(building)
                continue
            _put(building, folder)
            return fork
        return None
    except OSError as error:
        raise RunFolderFull(folder, error) from error
    finally:
        _undo(building)


def _undo(building: Path) -> None:
    """Remove what was built, and the checkpoint that was copied for it to a storage."""
    if (building / POINTER).exists():
        with suppress(ConfigError, StorageError, OSError):
            store_at(place_of(building), keep=None).clear()
    shutil.rmtree(building, ignore_errors=True)


def _put(building: Path, folder: Path) -> None:
    """Make sure that everything is on the disk, then give it its name."""
    for parent, _, names in os.walk(building, topdown=False):
        for path in [*(Path(parent, name) for name in names), Path(parent)]:
            sync(path)
    building.rename(folder)
    sync(folder.parent)
