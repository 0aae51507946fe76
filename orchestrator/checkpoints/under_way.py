"""One checkpoint that is being written, in a thread of its own."""

import errno
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from actors.messages import SavedFile
from orchestrator.checkpoints.manifest import CheckpointDamaged
from orchestrator.checkpoints.place import Place, Store
from orchestrator.checkpoints.state import RunState

FULL = (errno.ENOSPC, errno.EDQUOT)


class Learners(Protocol):
    """The learners, as far as checkpoints go.

    learners.save("/runs/demo/decay/seed-0/checkpoints/.step-000040.partial/learner")  # or s3://..., or gs://...
    files = learners.written()  # later, in another thread

    An error of theirs with the attributes `reason` (text) and `disk_full` (bool) is a checkpoint that could not be
    written; any other one is raised on as it is.
    """

    def save(self, folder: str) -> None:
        """Begin to write a folder of a checkpoint's; returns once training may change the weights again."""
        ...

    def written(self) -> Sequence[SavedFile]:
        """Wait, within bounds and beside other calls, until all is on the disk; the files of all learners.

        Their names are relative to the checkpoint's folder: `learner/__0_0.distcp`.
        A wait that was abandoned may still go on when the next `save` is called.
        """
        ...


class DiskRefused(Exception):
    """The driver's part could not be written."""

    def __init__(self, reason: str, *, disk_full: bool) -> None:
        super().__init__(reason)
        self.reason, self.disk_full = reason, disk_full


@contextmanager
def disk_refusals() -> Iterator[None]:
    """Tell what the store raises from what the learners raise: connections that break are OSErrors, too."""
    try:
        yield
    except OSError as error:
        raise DiskRefused(error.strerror or str(error), disk_full=error.errno in FULL) from error
    except CheckpointDamaged as error:
        raise DiskRefused(str(error), disk_full=False) from error


class CheckpointUnderWay:
    """Waits for the learners, then commits; `failure` is what went wrong instead, once it has.

    write = CheckpointUnderWay(store, learners, state, config, on_saved=print)
    write.join(None)
    """

    def __init__(
        self,
        store: Store,
        learners: Learners,
        state: RunState,
        config: Mapping[str, Any],
        on_saved: Callable[[Place], None],
    ) -> None:
        """Start the thread; the learners have begun already."""
        self.step = state.step
        self.failure: Exception | None = None
        self._store = store
        self._learners = learners
        self._state = state
        self._config = config
        self._on_saved = on_saved
        self._abandoned = False
        self._lock = threading.Lock()  # held while the folder is completed or removed
        self._thread = threading.Thread(target=self._work, name="evenkeel-checkpoint", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float | None) -> None:
        """Wait for the end of the thread."""
        self._thread.join(timeout_s)

    def abandon(self, timeout_s: float | None) -> None:
        """Remove what there is of it, and let nothing come of it any more.

        One that is being completed is waited for, as it is good; when it takes longer than `timeout_s`, it is left to
        the thread.
        """
        if self._lock.acquire(timeout=-1 if timeout_s is None else timeout_s):
            self._abandoned = True
            self._store.discard(self.step)
            self._lock.release()

    def _work(self) -> None:
        try:
            files = self._learners.written()
            with self._lock:
                if not self._abandoned:
                    with disk_refusals():
                        path = self._store.commit(self._state, self._config, files)
                    self._on_saved(path)
        except Exception as error:
            with self._lock:
                if not self._abandoned:  # else the folder may be another one's by now
                    self._store.discard(self.step)
                    self.failure = error
