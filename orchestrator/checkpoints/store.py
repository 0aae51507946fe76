"""The folder of a run's checkpoints: each of them whole or not there, the newest few kept."""

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.messages import SavedFile
from actors.storage.remote_folder import RemoteFolder
from orchestrator import yaml_files
from orchestrator.checkpoints.checkpoint import CONFIG, STATE, Checkpoint
from orchestrator.checkpoints.fingerprint import fingerprint
from orchestrator.checkpoints.manifest import CheckpointDamaged, Manifest, check_sizes, saved_file, sizes_below
from orchestrator.checkpoints.state import RunState

# Suffixes of hidden folders. A replaced one counts as long as the one for it is not in its place.
PARTIAL, REPLACED, REMOVED = ".partial", ".replaced", ".removed"
WHOLE = re.compile(rf"step-(\d{{6,}})|\.step-(\d{{6,}}){re.escape(REPLACED)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSize:
    """A checkpoint as a listing shows it: whether it is good, nobody has looked.

    Example:
        CheckpointSize(step=40, path=Path("runs/demo/decay/seed-0/checkpoints/step-000040"), num_bytes=14688211)
    """

    step: int
    path: Path | RemoteFolder
    num_bytes: int


class CheckpointStore:
    """The checkpoints of one run. One process at a time may write; reading changes nothing.

    store = CheckpointStore(Path("runs/demo/decay/seed-0/checkpoints"), keep=3)
    folder = store.begin(40)          # hidden; the learners write their files into it
    store.commit(state, config, files)
    checkpoint = store.newest(damaged=lambda path, reason: print(f"{path}: {reason}"))
    """

    def __init__(self, folder: Path, keep: int | None) -> None:
        """Define the store; the folder is made with the first checkpoint.

        Args:
            folder: of the checkpoints, and of nothing else.
            keep: how many stay, at least 1; None keeps all.
        """
        self.folder = folder
        self._keep = keep

    def begin(self, step: int) -> Path:
        """An empty hidden folder for the checkpoint of `step`; what earlier writers left unfinished is removed.

        Raises:
            OSError: it cannot be made.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_over in self._unfinished():
            shutil.rmtree(left_over, ignore_errors=True)
        partial = self._hidden(step, PARTIAL)
        partial.mkdir()
        return partial

    def commit(self, state: RunState, config: Mapping[str, Any], files: Sequence[SavedFile]) -> Path:
        """Complete the folder of `begin`, make sure that it is on the disk, and put it in its place.

        From then on it is the newest: those of later steps belong to a future that the run was taken back from, and
        are removed. So are the oldest beyond `keep`; what cannot be removed is tried again the next time.

        Args:
            state: of the run after the step.
            config: the resolved one of the run, as `model_dump(mode="json", exclude={"arms"})` gives it.
            files: all that the learners wrote into the folder.

        Returns:
            Where it is; one of the same step that was there is replaced.

        Raises:
            CheckpointDamaged: the files are not those that the learners say they wrote.
            OSError: the disk refuses.
        """
        partial, place = self._hidden(state.step, PARTIAL), self.folder / _name(state.step)
        (partial / STATE).write_text(state.to_json(), encoding="utf-8")
        (partial / CONFIG).write_text(yaml_files.dump(dict(config)), encoding="utf-8")
        all_files = (*files, *(saved_file(partial, name) for name in (STATE, CONFIG)))
        check_sizes(sizes_below(partial), all_files)
        Manifest(fingerprint=fingerprint(config), files=all_files).write(partial)
        _sync_all(partial)
        if place.exists():
            self._hide(place, state.step, REPLACED)
        partial.rename(place)
        sync(self.folder)
        sync(self.folder.parent)
        with suppress(OSError):
            self._remove_surplus(state.step)
        return place

    def discard(self, step: int) -> None:
        """Remove the folder of `begin`, if it is there."""
        shutil.rmtree(self._hidden(step, PARTIAL), ignore_errors=True)

    def newest(self, damaged: Callable[[Path, str], None], before: int | None = None) -> Checkpoint | None:
        """The newest good checkpoint; all of its bytes are read for that.

        Args:
            damaged: is told of every newer one that is passed over, and why.
            before: only those of earlier steps than this one.
        """
        for step, path in sorted(self._whole().items(), reverse=True):
            if before is None or step < before:
                try:
                    return Checkpoint.read_verified(path, step)
                except CheckpointDamaged as error:
                    damaged(path, str(error))
        return None

    def sizes(self) -> list[CheckpointSize]:
        """All checkpoints in the order of their steps, unread."""
        return [
            CheckpointSize(step=step, path=path, num_bytes=sum(sizes_below(path).values()))
            for step, path in sorted(self._whole().items())
        ]

    def unfinished_bytes(self) -> int:
        """What earlier writers left unfinished, and `begin` will remove."""
        return sum(sum(sizes_below(path).values()) for path in self._unfinished())

    def clear(self) -> None:
        """Remove all checkpoints, whole or not, and the folder if it is empty then; OSError when the disk refuses."""
        for step, path in self._whole().items():
            self._hide(path, step, REMOVED)
        for left_over in [*self._unfinished(), *self.folder.glob(f".step-*{REPLACED}")]:
            shutil.rmtree(left_over)
        with suppress(OSError):
            self.folder.rmdir()

    def _unfinished(self) -> list[Path]:
        return [*self.folder.glob(f".step-*{PARTIAL}"), *self.folder.glob(f".step-*{REMOVED}")]

    def _whole(self) -> dict[int, Path]:
        """By step, in no order."""
        found: dict[int, Path] = {}
        for path in sorted(self.folder.glob("*")):  # hidden ones first
            if (name := WHOLE.fullmatch(path.name)) and path.is_dir():
                found[int(name[1] or name[2])] = path
        return found

    def _remove_surplus(self, newest: int) -> None:
        """All but the last `keep` up to `newest`, and those for which there is another one."""
        whole = self._whole()
        for replaced in self.folder.glob(f".step-*{REPLACED}"):
            if replaced not in whole.values():
                shutil.rmtree(replaced, ignore_errors=True)
        kept = sorted(step for step in whole if step <= newest)
        surplus = [] if self._keep is None else kept[: -self._keep]
        for step in [*surplus, *(step for step in whole if step > newest)]:
            shutil.rmtree(self._hide(whole[step], step, REMOVED), ignore_errors=True)

    def _hide(self, path: Path, step: int, suffix: str) -> Path:
        """Rename it in one go to a name under which, half deleted, it is taken for nothing."""
        hidden = self._hidden(step, suffix)
        shutil.rmtree(hidden, ignore_errors=True)
        return path.rename(hidden)

    def _hidden(self, step: int, suffix: str) -> Path:
        return self.folder / f".{_name(step)}{suffix}"


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _sync_all(folder: Path) -> None:
    """Wait until the files in a folder, and the folders in it, are on the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
