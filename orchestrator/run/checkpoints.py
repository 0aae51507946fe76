"""The checkpoints of one run: when they are made, and which one it can go on from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator import disk
from orchestrator.checkpoints.checkpoint import Checkpoint
from orchestrator.checkpoints.place import Place, place_of, settle, store_at
from orchestrator.checkpoints.state import RunState
from orchestrator.checkpoints.under_way import Learners
from orchestrator.checkpoints.writer import CheckpointWriter
from orchestrator.config import CheckpointConfig
from orchestrator.run.folder import RunFolder
from orchestrator.run.log import RunLog
from orchestrator.storage_uri import local_folder


class RunCheckpoints:
    """Written while training goes on. Without a `checkpoint:` block none are made, and those that are there stay.

    checkpoints = RunCheckpoints(config.checkpoint, folder, told)
    start = checkpoints.newest()
    with checkpoints.written_by(crew):
        checkpoints.begin(state)
    """

    def __init__(self, config: CheckpointConfig | None, folder: RunFolder, told: RunLog) -> None:
        """Define them.

        Args:
            config: the block.
            folder: of the run; it is open.
            told: hears of those that are made, and of damaged ones.

        Raises:
            ConfigError: the checkpoints that are there are in another place than the block says.
        """
        self._config = config
        self._run = folder
        self._told = told
        place = settle(folder.path, config, folder.status.uid)
        # absolute: learners write there, and have a working directory of their own
        self._store = store_at(place.resolve() if isinstance(place, Path) else place, config.keep if config else None)
        self._writer: CheckpointWriter | None = None

    def newest(self) -> Checkpoint | None:
        """The newest one that is whole and whose steps are in the metrics file; those passed over are named."""
        before = None
        while checkpoint := self._store.newest(self._passed_over, before):
            state = checkpoint.state
            if self._run.metrics.ends_with(state.metrics_bytes, state.step - 1):
                return checkpoint
            self._passed_over(checkpoint.path, f"{self._run.metrics.path} does not have all steps before it")
            before = state.step
        return None

    @contextmanager
    def written_by(self, learners: Learners) -> Iterator[None]:
        """Make them in the with-block, at the end of which all are on the disk."""
        if self._config is None:
            yield
            return
        with CheckpointWriter(self._store, learners, self._saved) as self._writer:
            yield

    def due(self, step: int, last: int) -> bool:
        """Whether one is to be made after this step."""
        return self._config is not None and self._config.due(step, last)

    def begin(self, state: RunState) -> None:
        """Begin to write one. Errors as in `CheckpointWriter.begin`."""
        if self._writer is not None:
            self._writer.begin(state, self._run.config)

    def check(self) -> None:
        """Raise what went wrong in the background; costs nothing."""
        if self._writer is not None:
            self._writer.check()

    def finish(self) -> None:
        """Wait for the one under way. Errors as in `begin`."""
        if self._writer is not None:
            self._writer.finish()

    def abandon(self) -> None:
        """Forget the one under way."""
        if self._writer is not None:
            self._writer.abandon()

    def _passed_over(self, path: Place, reason: str) -> None:
        self._told.warn(f"checkpoint {path} is not used: {reason}")

    def _saved(self, step: int, path: Place, seconds: float) -> None:
        self._run.log.info("checkpoint before step %d: %s, %.2f s in the background", step, path, seconds)


def learner_files(checkpoint: Checkpoint | None) -> str | None:
    """What of a checkpoint is for the learners to load."""
    return checkpoint.learner_files() if checkpoint else None


def check_room(run: Path, config: CheckpointConfig | None, model: str, *, resume: bool) -> None:
    """See to it that the checkpoints of a run will fit on the disk, as far as the size of the model is known.

    Those that a resumed run has already count, and so does what an earlier writer has left unfinished: the next one
    removes it.

    Args:
        run: folder of the run, there already or not.
        config: the block.
        model: folder or hub name.
        resume: the run goes on; else what is there is moved aside, and stays.

    Raises:
        DiskTooSmall: they do not.
    """
    each = disk.checkpoint_bytes(model)
    if config is not None and each is not None:
        folder = local_folder(config.storage) if config.storage else run
        if folder is None:  # an object store has room
            return
        store = store_at(place_of(run), config.keep)
        there, freed = (len(store.sizes()), store.unfinished_bytes()) if resume else (0, 0)
        disk.check_room(folder, max(0, disk.room_needed(each, config.keep, there) - freed))
