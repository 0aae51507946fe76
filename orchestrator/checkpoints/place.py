"""Where the checkpoints of a run are: beside its other files, on a mount of their own, or in an object store."""

import json
import os
from pathlib import Path

from actors.storage.remote_folder import RemoteFolder, is_remote
from orchestrator.checkpoints.remote_store import RemoteStore
from orchestrator.checkpoints.store import CheckpointStore, sync
from orchestrator.config import CheckpointConfig
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.storage_uri import local_folder

FOLDER = "checkpoints"  # in the run's, where no storage is set
POINTER = "checkpoints.json"  # beside it, where one is: what was asked for and where that is for this run
Place = Path | RemoteFolder
Store = CheckpointStore | RemoteStore


def place_of(run: Path) -> Place:
    """Where the checkpoints of a run are, or will be, as far as its folder says.

    Raises:
        ConfigError: what it says cannot be used.
    """
    path = run / POINTER
    try:
        found = json.loads(path.read_bytes())["checkpoints"]
    except FileNotFoundError:
        return run / FOLDER
    except OSError as error:
        raise ConfigError(str(path), "", MISSING, f"a readable file ({error.strerror})") from None
    except (ValueError, LookupError, TypeError):
        found = None
    if not isinstance(found, str) or not (is_remote(found) or found.startswith("/")):
        raise ConfigError(str(path), "checkpoints", found, "the folder or URI of a run's checkpoints")
    return RemoteFolder(found) if is_remote(found) else Path(found)


def place_in(storage: str, run: Path, uid: str) -> Place:
    """Where a run's checkpoints go in a storage that many runs use: `<storage>/<name>/<arm>/seed-<n>/<uid>`.

    Args:
        storage: as in the `checkpoint:` block.
        run: folder of the run.
        uid: of the run; one that is moved aside and the one in its stead have different ones.
    """
    folder = local_folder(storage)
    place: Place = RemoteFolder(storage) if folder is None else folder
    for part in (*run.absolute().parts[-3:], uid):
        place = place / part
    return place


def check_same_place(run: Path, config: CheckpointConfig | None, file: str) -> None:
    """Refuse to go on with a run while its checkpoints are in another place than where it would look for them.

    Without a block none are made, and those that are there are found.

    Args:
        run: folder of the run; nothing need be there.
        config: the block of today.
        file: where that was read, for the message.

    Raises:
        ConfigError: they are.
    """
    if config is None:
        return
    place = place_of(run)
    beside = place == run / FOLDER
    if beside and (config.storage is None or not CheckpointStore(run / FOLDER, keep=None).sizes()):
        return
    if not beside and config.storage is not None:
        wanted = place_in(config.storage, run, place.name)
        if _bare(wanted) == _bare(place):
            return
    expected = "null" if beside else "the storage of the run that is resumed"
    raise ConfigError(file, "checkpoint.storage", config.storage, f"{expected}: its checkpoints are in {place}")


def settle(run: Path, config: CheckpointConfig | None, uid: str) -> Place:
    """Where a run's checkpoints are from now on; noted in its folder unless that is beside its other files.

    Args:
        run: folder of the run.
        config: the block; None leaves all as it is.
        uid: of the run.

    Raises:
        ConfigError: as `check_same_place`.
        OSError: it cannot be noted.
    """
    check_same_place(run, config, str(run))
    if config is None or config.storage is None:
        return place_of(run)
    place = place_in(config.storage, run, uid)
    note(run, place)
    return place


def note(run: Path, place: Place) -> None:
    """Write down in a run's folder where its checkpoints are; OSError when the disk refuses."""
    partial = run / f".{POINTER}.{os.getpid()}.partial"
    partial.write_text(json.dumps({"checkpoints": str(place)}) + "\n", encoding="utf-8")
    sync(partial)
    partial.replace(run / POINTER)
    sync(run)


def store_at(place: Place, keep: int | None) -> Store:
    """The checkpoints at a place; `keep` as in `CheckpointStore`."""
    return CheckpointStore(place, keep) if isinstance(place, Path) else RemoteStore(place, keep)


def _bare(place: Place) -> str:
    return str(place) if isinstance(place, Path) else place.without_query
