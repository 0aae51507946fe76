"""A run as its folder tells it: how it stands, how far it came, what it keeps on the disk."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic_core import from_json

from actors.storage.remote_folder import RemoteFolder, StorageError
from orchestrator.checkpoints.manifest import MANIFEST
from orchestrator.checkpoints.place import POINTER, Place, place_of
from orchestrator.checkpoints.remote_store import Attempt, RemoteStore
from orchestrator.checkpoints.store import PARTIAL, REMOVED, REPLACED
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.run.folder import CHECKPOINTS, CONFIG, METRICS
from orchestrator.run.lock import is_locked
from orchestrator.run.status import STATUS, RunStatus

# Those with a suffix are being written or deleted, or were when a process was killed.
CHECKPOINT = re.compile(rf"\.?step-(\d+)({re.escape(PARTIAL)}|{re.escape(REPLACED)}|{re.escape(REMOVED)})?")
STEPS = re.compile(rb"^steps: (\d+)\r?$", re.MULTILINE)  # reading all YAML of 1,000 configs takes 4 s
TAIL_BYTES = 65_536  # of the metrics: a step's line is a few thousand
State = Literal["complete", "unfinished", "no manifest"]
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A folder below `checkpoints/`.

    Example:
        Checkpoint(name="step-000040", step=40, state="complete", num_bytes=3670016)
    """

    name: str  # of the folder
    step: int  # in its name
    state: State
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run's folder says. A file in it that cannot be used is one of the problems, and no more.

    Example:
        RunSummary(key="demo/decay/seed-0", path=Path("runs/demo/decay/seed-0"), state="died", status=status,
                   steps_done=61, steps=100, checkpoints=(checkpoint,),
                   files={"metrics.jsonl": 81920, "checkpoints": 3670016}, problems=(),
                   place=Path("runs/demo/decay/seed-0/checkpoints"))
    """

    key: str  # its path below the folder of all runs
    path: Path
    state: str  # as in `RunStatus`; "died" while running; "unknown" without run.json, "broken" with a broken one
    status: RunStatus | None
    steps_done: int | None  # None when its metrics cannot be read
    steps: int | None  # that its config asks for
    checkpoints: tuple[Checkpoint, ...]  # by step
    files: dict[str, int]  # bytes of what lies in the folder, folders with all in them; checkpoints wherever they are
    problems: tuple[str, ...]
    place: Place  # of its checkpoints

    @classmethod
    def read(cls, key: str, path: Path) -> "RunSummary":
        """All of it; raises nothing that a broken file in the folder could cause."""
        problems: list[str] = []

        def tried(read: Callable[[Path], Found], name: str, otherwise: Found) -> Found:
            try:
                return read(path / name)
            except ConfigError as error:
                problems.append(str(error).removeprefix(f"{path}{os.sep}"))
            except OSError as error:
                problems.append(f"{name}: {error.strerror}")
            except StorageError as error:
                problems.append(str(error))
            return otherwise

        broken: tuple[str, RunStatus | None] = ("broken", None)
        beside: Place = path / CHECKPOINTS
        place = tried(lambda file: place_of(file.parent), POINTER, beside)
        nothing: dict[str, int] = {}
        files = tried(lambda file: {entry.name: size for entry, size in _entries(file)}, ".", nothing)
        none: tuple[Checkpoint, ...] = ()
        checkpoints = tried(lambda file: _checkpoints(place), CHECKPOINTS, none)
        if place != beside and checkpoints:
            files[CHECKPOINTS] = sum(checkpoint.num_bytes for checkpoint in checkpoints)
        state, status = tried(lambda file: _state(file.parent), STATUS, broken)
        return cls(
            key=key,
            path=path,
            state=state,
            status=status,
            steps_done=tried(_steps_done, METRICS, None),
            steps=tried(_steps, CONFIG, None),
            checkpoints=checkpoints,
            files=files,
            problems=tuple(problems),
            place=place,
        )

    @property
    def num_bytes(self) -> int:
        """Of everything in the folder, and of its checkpoints where they are elsewhere."""
        return sum(self.files.values())

    @property
    def checkpoint_bytes(self) -> int:
        """Of its checkpoints, whole or not."""
        return self.files.get(CHECKPOINTS, 0)

    @property
    def complete(self) -> tuple[Checkpoint, ...]:
        """The checkpoints that a resume can use, as far as can be told without reading them."""
        return tuple(checkpoint for checkpoint in self.checkpoints if checkpoint.state == "complete")


def size_of(path: str | Path) -> int:
    """Bytes of all files below a folder; links are not followed, and what vanishes meanwhile is not counted."""
    return sum(size for _, size in _entries(path))


def _entries(folder: str | Path) -> Iterator[tuple[os.DirEntry[str], int]]:
    """What lies in a folder, each with its bytes; nothing when there is no such folder any more."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    below = entry.is_dir(follow_symlinks=False)
                    yield entry, size_of(entry.path) if below else entry.stat(follow_symlinks=False).st_size
                except FileNotFoundError:
                    continue
    except FileNotFoundError:
        return


def _state(folder: Path) -> tuple[str, RunStatus | None]:
    status = RunStatus.read(folder)
    if status is not None and status.status == "running" and not is_locked(folder):
        status = RunStatus.read(folder)  # it may just have ended
        if status is not None and status.status == "running":
            return "died", status
    return ("unknown" if status is None else status.status), status


def _steps_done(metrics: Path) -> int | None:
    """From the last whole line; a run may have been killed in the middle of the next one."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    if not lines:
        return 0
    try:
        step = from_json(lines[-1])["step"]
    except (ValueError, TypeError, KeyError):
        step = None
    if type(step) is not int or step < 0:
        raise ConfigError(str(metrics), "last line", lines[-1].decode(errors="replace"), "a step's metrics")
    return step + 1


def _steps(config: Path) -> int | None:
    try:
        steps = STEPS.search(config.read_bytes())
    except FileNotFoundError:
        return None
    if steps is None:
        raise ConfigError(str(config), "steps", MISSING, "a whole number: it is missing")
    return int(steps[1])


def _checkpoints(folder: Place) -> tuple[Checkpoint, ...]:
    if isinstance(folder, RemoteFolder):
        return tuple(_remote(attempt) for attempt in RemoteStore(folder, keep=None).attempts())
    if folder.is_symlink():
        raise ConfigError(str(folder), "", MISSING, "a folder, no link: what lies behind it is left alone")
    sizes = {entry.name: size for entry, size in _entries(folder)}
    found: list[Checkpoint] = []
    for name, size in sizes.items():
        if parts := CHECKPOINT.fullmatch(name):
            number, suffix = parts.groups()
            whole = not suffix or (suffix == REPLACED and f"step-{number}" not in sizes)
            state: State = "unfinished" if not whole else "complete" if _has_manifest(folder / name) else "no manifest"
            found.append(Checkpoint(name=name, step=int(number), state=state, num_bytes=size))
    return tuple(sorted(found, key=lambda checkpoint: checkpoint.step))


def _remote(attempt: Attempt) -> Checkpoint:
    state: State = "unfinished" if attempt.ended_ns is None else "complete"
    return Checkpoint(name=attempt.folder.name, step=attempt.step, state=state, num_bytes=attempt.num_bytes)


def _has_manifest(checkpoint: Path) -> bool:
    return (checkpoint / MANIFEST).is_file()
