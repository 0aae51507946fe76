"""Deleting runs or their checkpoints: first out of sight by a rename, so that none is ever there by half."""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from orchestrator.checkpoints.place import place_of, store_at
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.run.folder import CHECKPOINTS
from orchestrator.run.lock import LOCK, RunInUse, holder, is_locked, run_lock
from sweeps.runs import arm_folders, find_runs

LEVELS = 3  # <name>/<arm>/seed-<n> above a run's checkpoints, in a storage
HIDDEN = ".deleted-"
LEFT_OVER = re.compile(r"\.deleted-(seed-\d+(\.old-\d+)?|checkpoints)-[0-9a-f]{32}")


def check_not_in_use(folders: Iterable[Path]) -> None:
    """Refuse to delete what a process is at work on; nothing is made there.

    Raises:
        RunInUse: the first such run.
        ConfigError: the lock of one cannot be read.
    """
    for folder in folders:
        with _told(folder, "a run whose lock can be read"):
            found = holder(folder)
        if found is not None:
            raise RunInUse(folder, found)


def delete_run(folder: Path) -> None:
    """Delete a run with its checkpoints and all that is in its folder; folders of arm and name, too, if empty then.

    Links in it are deleted, what they lead to is not.

    Args:
        folder: one that `find_runs` has found.

    Raises:
        RunInUse: a process is at work on it.
        ConfigError: it cannot be deleted; what is left of it has a hidden name.
        StorageError: the object store that holds its checkpoints cannot be used; the run is still there.
    """
    with run_lock(folder), _told(folder, "a run that can be deleted"):
        _clear_storage(folder)
        _remove(folder)
    _tidy(folder.parent)


def delete_checkpoints(folder: Path) -> None:
    """Delete all checkpoints of a run, whole or not, and nothing else of it; raises as `delete_run` does."""
    with run_lock(folder), _told(folder, "a run whose checkpoints can be deleted"):
        _clear_storage(folder)
        if (folder / CHECKPOINTS).is_dir() and not (folder / CHECKPOINTS).is_symlink():
            _remove(folder / CHECKPOINTS)


def _clear_storage(folder: Path) -> None:
    """Delete a run's checkpoints where they are elsewhere; what else is there is left alone."""
    place = place_of(folder)
    if place == folder / CHECKPOINTS:
        return
    store_at(place, keep=None).clear()
    if isinstance(place, Path):
        for above in place.parents[:LEVELS]:
            with suppress(OSError):  # not empty
                above.rmdir()


def leftovers(root: Path) -> list[Path]:
    """What deletions that were interrupted have left in a folder of runs."""
    arms = arm_folders(root)
    places = [(arm, None) for arm in arms] + [(run, run) for run in find_runs(root).values()]
    found = []
    for place, locked in places:
        with os.scandir(place) as entries:
            hidden = [Path(entry.path) for entry in entries if LEFT_OVER.fullmatch(entry.name)]
        found += [path for path in hidden if not path.is_symlink() and not is_locked(locked or path)]
    return sorted(found)


def delete_leftover(path: Path) -> None:
    """Delete one of the `leftovers`, as far as that can be done."""
    shutil.rmtree(path, ignore_errors=True)
    if path.name.startswith(f"{HIDDEN}seed-"):
        _tidy(path.parent)


def _tidy(arm: Path) -> None:
    """Remove the folder of an arm, and then that of the name, when they are empty.

    A comparison leaves its lock in the latter: that is as good as nothing once nobody holds it.
    """
    name = arm.parent
    with suppress(OSError, ConfigError):
        arm.rmdir()
        if os.listdir(name) == [LOCK]:
            with run_lock(name):
                (name / LOCK).unlink()
                name.rmdir()
        else:
            name.rmdir()


def _remove(path: Path) -> None:
    hidden = path.with_name(f"{HIDDEN}{path.name}-{uuid4().hex}")
    path.rename(hidden)
    shutil.rmtree(hidden)


@contextmanager
def _told(folder: Path, expected: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f": {os.path.relpath(error.filename, folder.parent)}" if error.filename else ""
        raise ConfigError(str(folder), "", MISSING, f"{expected} ({error.strerror}{where})") from None
