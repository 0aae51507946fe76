"""The checkpoints of a run in an object store, which renames nothing: one is there once its manifest is."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from actors.messages import SavedFile
from actors.storage.remote_folder import RemoteFolder, StorageError
from orchestrator import yaml_files
from orchestrator.checkpoints.checkpoint import CONFIG, STATE, Checkpoint
from orchestrator.checkpoints.fingerprint import fingerprint
from orchestrator.checkpoints.manifest import (
    DIGEST,
    MANIFEST,
    CheckpointDamaged,
    Manifest,
    check_sizes,
    content_as_saved,
)
from orchestrator.checkpoints.state import RunState
from orchestrator.checkpoints.store import CheckpointSize

ATTEMPT = re.compile(r"step-(\d{6,})-([0-9a-f]{8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A checkpoint, or what there is of one. No two have the same name: a writer that was given up harms no later one.

    Example:
        Attempt(step=40, folder=RemoteFolder("s3://bucket/demo/decay/seed-0/9f86d0/step-000040-5e884898"),
                num_bytes=14688211, ended_ns=1767225600000000000)
    """

    step: int
    folder: RemoteFolder
    num_bytes: int
    ended_ns: int | None  # when its manifest was written; None while there is none


class RemoteStore:
    """As `CheckpointStore`, which says what each method is for. One process at a time may write.

    store = RemoteStore(RemoteFolder("s3://bucket/demo/decay/seed-0/9f86d0"), keep=3)
    folder = store.begin(40)
    store.commit(state, config, files)

    All methods raise StorageError when the object store cannot be used: then nobody knows which checkpoints there are.
    """

    def __init__(self, folder: RemoteFolder, keep: int | None) -> None:
        """Define the store; nothing is looked up. `keep`: how many stay; None keeps all."""
        self.folder = folder
        self._keep = keep
        self._begun: dict[int, RemoteFolder] = {}

    def begin(self, step: int) -> RemoteFolder:
        """A folder for the checkpoint of `step`; what earlier writers left unfinished is removed."""
        for attempt in self.attempts():
            if attempt.ended_ns is None:
                attempt.folder.delete()
        self._begun[step] = self.folder / f"step-{step:06d}-{uuid4().hex[:8]}"
        return self._begun[step]

    def commit(self, state: RunState, config: Mapping[str, Any], files: Sequence[SavedFile]) -> RemoteFolder:
        """Complete the folder of `begin`; the manifest, written last, makes it count.

        Raises:
            CheckpointDamaged: the files are not those that the learners say they wrote.
        """
        folder = self._begun[state.step]
        contents = {STATE: state.to_json().encode(), CONFIG: yaml_files.dump(dict(config)).encode()}
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        all_files = (*files, *(content_as_saved(name, content) for name, content in contents.items()))
        check_sizes({name: file.num_bytes for name, file in folder.files().items()}, all_files)
        manifest, digest = Manifest(fingerprint=fingerprint(config), files=all_files).contents()
        (folder / DIGEST).write_bytes(digest)
        (folder / MANIFEST).write_bytes(manifest)
        del self._begun[state.step]
        with suppress(StorageError):
            self._remove_surplus(state.step, folder)
        return folder

    def discard(self, step: int) -> None:
        """Remove the folder of `begin`, if it is there and the store lets that happen."""
        if folder := self._begun.pop(step, None):
            with suppress(StorageError):
                folder.delete()

    def newest(self, damaged: Callable[[RemoteFolder, str], None], before: int | None = None) -> Checkpoint | None:
        """The newest good checkpoint; all of its bytes are read for that."""
        for attempt in reversed(self._whole()):
            if before is None or attempt.step < before:
                try:
                    return Checkpoint.read_verified(attempt.folder, attempt.step)
                except CheckpointDamaged as error:
                    damaged(attempt.folder, str(error))
        return None

    def sizes(self) -> list[CheckpointSize]:
        """All checkpoints in the order of their steps, unread."""
        return [CheckpointSize(step=it.step, path=it.folder, num_bytes=it.num_bytes) for it in self._whole()]

    def unfinished_bytes(self) -> int:
        """What earlier writers left unfinished, and `begin` will remove."""
        return sum(attempt.num_bytes for attempt in self.attempts() if attempt.ended_ns is None)

    def clear(self) -> None:
        """Remove all checkpoints, whole or not."""
        for attempt in self.attempts():
            _remove(attempt)

    def attempts(self) -> list[Attempt]:
        """All that there is, whole or not: in the order of their steps; of the same step, in that of their ends."""
        sizes: dict[str, int] = {}
        ends: dict[str, int] = {}
        for name, file in self.folder.files().items():
            attempt, _, inner = name.partition("/")
            sizes[attempt] = sizes.get(attempt, 0) + file.num_bytes
            if inner == MANIFEST:
                ends[attempt] = file.mtime_ns
        found = [
            Attempt(step=int(parts[1]), folder=self.folder / name, num_bytes=size, ended_ns=ends.get(name))
            for name, size in sizes.items()
            if (parts := ATTEMPT.fullmatch(name))
        ]
        return sorted(found, key=lambda attempt: (attempt.step, attempt.ended_ns or 0))

    def _whole(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts() if attempt.ended_ns is not None]

    def _remove_surplus(self, newest: int, folder: RemoteFolder) -> None:
        """All but the last `keep` up to `newest`, of that one all others than `folder`, and those of later steps."""
        whole = self._whole()
        kept = sorted({attempt.step for attempt in whole if attempt.step <= newest})
        kept = kept if self._keep is None else kept[-self._keep :]
        for attempt in whole:
            if attempt.step not in kept or (attempt.step == newest and attempt.folder != folder):
                _remove(attempt)


def _remove(attempt: Attempt) -> None:
    (attempt.folder / MANIFEST).delete_file()  # first: half deleted, it is taken for nothing
    attempt.folder.delete()
