"""Writing checkpoints while training goes on: the loop waits for the copy in memory only."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from orchestrator.checkpoints.checkpoint import LEARNER
from orchestrator.checkpoints.place import Place, Store
from orchestrator.checkpoints.state import RunState
from orchestrator.checkpoints.under_way import CheckpointUnderWay, Learners, disk_refusals

CLOSE_TIMEOUT_S = 60.0  # how long the end of a failed run waits for a checkpoint under way
OnSaved = Callable[[int, Place, float], None]


class CheckpointFailed(RuntimeError):
    """A checkpoint could not be written; those before it are untouched.

    Example:
        >>> print(CheckpointFailed(80, Path("runs/x"), "No space left on device", disk_full=True, last_good=40))
        the checkpoint of step 80 could not be written to runs/x: No space left on device; the last good one is that \
of step 40: make room and go on with --resume
    """

    def __init__(self, step: int, folder: Place, reason: str, *, disk_full: bool, last_good: int | None) -> None:
        """Args: last_good: step of the newest one before it."""
        cure = "make room" if disk_full else "put this right"
        last = f"the last good one is that of step {last_good}: {cure} and go on with --resume"
        none = f"there is none before it: {cure} and go on with --resume, from the first step"
        failed = f"the checkpoint of step {step} could not be written to {folder}: {reason}"
        super().__init__(f"{failed}; {none if last_good is None else last}")
        self.step, self.reason, self.disk_full, self.last_good = step, reason, disk_full, last_good


class CheckpointWriter:
    """Has at most one checkpoint under way, in the background.

    with CheckpointWriter(store, learners) as writer:
        for step in range(first, last + 1):
            writer.check()
            ...
            if config.checkpoint.due(step, last):
                writer.begin(state, tree)

    The end of the with-block waits for the one under way; after an error only for a while, and that error stays.
    """

    def __init__(self, store: Store, learners: Learners, on_saved: OnSaved | None = None) -> None:
        """Define the writer.

        Args:
            store: where checkpoints go.
            learners: who write most of them.
            on_saved: is told of each one, by step, folder and seconds since `begin`; called from the background.
        """
        self._store = store
        self._learners = learners
        self._on_saved = on_saved
        self._under_way: CheckpointUnderWay | None = None

    def begin(self, state: RunState, config: Mapping[str, Any]) -> None:
        """Start the checkpoint of `state.step` when the one under way is done; returns once training may go on.

        Raises:
            CheckpointFailed: this one cannot be begun, or that one has failed.
            Exception: what the learners raised, such as the loss of one.
        """
        self.finish()
        started = time.perf_counter()
        try:
            with disk_refusals():
                folder = self._store.begin(state.step)
            if isinstance(folder, Path):
                folder = folder.absolute()  # they have working folders of their own
            self._learners.save(str(folder / LEARNER))
        except Exception as error:
            self._store.discard(state.step)
            self._fail(state.step, error)

        def saved(path: Place) -> None:
            if self._on_saved is not None:
                self._on_saved(state.step, path, time.perf_counter() - started)

        self._under_way = CheckpointUnderWay(self._store, self._learners, state, config, saved)

    def check(self) -> None:
        """Raise what has gone wrong in the background, once; costs nothing. Errors as in `begin`."""
        under_way = self._under_way
        if under_way is not None and under_way.failure is not None:
            self._under_way = None
            self._fail(under_way.step, under_way.failure)

    def finish(self) -> None:
        """Wait for the one under way, as long as the learners take; errors as in `begin`."""
        if self._under_way is not None:
            self._under_way.join(None)
            self.check()
            self._under_way = None

    def abandon(self) -> None:
        """Forget the one under way and its failure: a learner has died. If all had written theirs, it is completed."""
        if self._under_way is not None:
            self._under_way.abandon(None)
            self._under_way = None

    def _fail(self, step: int, error: Exception) -> NoReturn:
        if not (hasattr(error, "reason") and hasattr(error, "disk_full")):
            raise error
        earlier = [size.step for size in self._store.sizes() if size.step < step]
        last_good = earlier[-1] if earlier else None
        told = (step, self._store.folder, error.reason)
        raise CheckpointFailed(*told, disk_full=error.disk_full, last_good=last_good) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.finish()
        elif self._under_way is not None:
            self._under_way.join(CLOSE_TIMEOUT_S)
            self._under_way.abandon(0)
