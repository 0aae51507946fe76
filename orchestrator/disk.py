"""Whether a run's checkpoints have room: how large one is, how many are there at a time, what the disk has left."""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open

BYTES_PER_PARAMETER = 12  # float32 weights and two moments of AdamW
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
HEAD, EMBEDDING = "lm_head.weight", "embed_tokens.weight"  # a file may hold both where they are one


class DiskTooSmall(RuntimeError):
    """There is not enough room for what a run has to keep."""

    def __init__(self, folder: Path, needed: int, free: int) -> None:
        """Args: folder: that lies on the disk. needed, free: bytes."""
        super().__init__(
            f"{folder}: {size_text(needed)} are needed for checkpoints and {size_text(free)} are free there: delete "
            "old ones (evenkeel runs delete RUN --checkpoints), set checkpoint.keep lower, or take another --runs"
        )
        self.folder, self.needed, self.free = folder, needed, free


def checkpoint_bytes(model: str) -> int | None:
    """Size of one checkpoint, from the headers of the model's safetensors files.

    Args:
        model: a folder, or a hub name that was downloaded.

    Returns:
        Bytes; None when the files are not on this machine, not of that format, or broken.
    """
    try:
        folder = Path(model) if Path(model).is_dir() else _cached(model)
        sizes = dict(size for path in _weight_files(folder) for size in _tensor_sizes(path)) if folder else {}
        if folder and _tied(folder) and any(name.endswith(EMBEDDING) for name in sizes):
            sizes.pop(HEAD, None)
    except (OSError, ValueError, SafetensorError):
        return None
    return sum(sizes.values()) * BYTES_PER_PARAMETER or None


def room_needed(each: int, keep: int | None, there: int = 0) -> int:
    """Bytes that a run still has to find: one checkpoint is written while `keep` others are there.

    >>> room_needed(100, keep=3), room_needed(100, keep=3, there=2), room_needed(100, keep=None)
    (400, 200, 0)

    Args:
        each: size of a checkpoint.
        keep: how many stay; None when none are made.
        there: how many the run has already, when it is resumed.
    """
    return 0 if keep is None else max(keep + 1 - there, 1) * each


def free_bytes(folder: Path) -> int:
    """Room on the disk where `folder` is or will be."""
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.is_dir())).free


def check_room(folder: Path, needed: int) -> None:
    """Refuse to start what will not fit.

    Args:
        folder: where it will be written; need not be there yet.
        needed: bytes.

    Raises:
        DiskTooSmall: fewer are free.
    """
    free = free_bytes(folder)
    if needed > free:
        raise DiskTooSmall(folder, needed, free)


def size_text(num_bytes: int) -> str:
    """A size with three digits at most.

    >>> [size_text(size) for size in (0, 999, 1024, 3597312, 76 * 2**30)]
    ['0 B', '999 B', '1 KiB', '3.43 MiB', '76 GiB']
    """
    size, units = float(num_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 999.5 and len(units) > 1:  # noqa: PLR2004 - would need a fourth digit
        size /= 1024
        units.pop(0)
    return f"{size:.3g} {units[0]}" if size < 999.5 else f"{size:.0f} {units[0]}"  # noqa: PLR2004


def _cached(name: str) -> Path | None:
    """The folder of a hub model's newest files on this machine."""
    with suppress(ValueError):  # no name of a model
        for file in (WEIGHTS, INDEX):
            if isinstance(path := try_to_load_from_cache(name, file), str):
                return Path(path).parent
    return None


def _weight_files(folder: Path) -> list[Path]:
    """Those that transformers would load."""
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [folder / WEIGHTS]
    names = _mapping(folder / INDEX).get("weight_map")
    if not isinstance(names, dict):
        raise ValueError(f"{folder / INDEX} names no files")
    return [folder / name for name in set(names.values())]


def _tensor_sizes(path: Path) -> Iterator[tuple[str, int]]:
    """(name, number of elements) of the tensors in a file."""
    with safe_open(path, "np") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            yield name, math.prod(file.get_slice(name).get_shape())


def _tied(folder: Path) -> bool:
    return bool(_mapping(folder / "config.json").get("tie_word_embeddings"))


def _mapping(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no mapping")
    return found
