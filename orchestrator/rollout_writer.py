"""Writing recorded rollouts from a thread of its own: the run neither waits for the disk nor fails with it."""

import os
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow.parquet as pq

from orchestrator.rollout_records import RolloutRow, table_of

Rows = Sequence[RolloutRow] | Callable[[], Sequence[RolloutRow]]
PENDING = 4  # files that may wait for the thread
PARTIAL = ".partial"  # suffix of a file that is being written
# Log-probs byte by byte, everything else through a dictionary: a third smaller than dictionaries for all, and faster.
SPLIT = {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in ("train_logprobs", "rollout_logprobs")}
DICTIONARY = ["split", "source", "prompt", "response", "answer", "extracted", "error"]
DICTIONARY += [f"{name}.list.element" for name in ("prompt_token_ids", "response_token_ids", "tokens")]
FORMAT: dict[str, Any] = {
    "compression": "zstd",
    "row_group_size": 256,  # rows that a reader has to hold at once
    "use_dictionary": DICTIONARY,
    "column_encoding": SPLIT,
}
LOOK_AGAIN_S = 1.0  # while the queue is full: is the thread still there


class RolloutWriter:
    """One background thread that writes files one after the other, each whole or not at all.

    A file is written under a hidden name beside its own, synced and renamed. One that cannot be written (a full disk,
    no permission, rows that do not fit together) is left out: the run goes on, `failed` counts it, and each cause is
    told once.

    with RolloutWriter(folder / "rollouts", warn=print) as writer:
        writer.write("step-000040", rows)
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        """Start the thread; the folder is made with the first file.

        Args:
            folder: where the files go, of this writer alone: what an earlier one left unfinished there is removed.
            warn: gets one line for each cause; called from the thread.
        """
        self._folder = folder
        self._warn = warn
        self._jobs: queue.Queue[tuple[str, Rows] | None] = queue.Queue(PENDING)
        self._causes: set[object] = set()
        self._failed = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="evenkeel-rollouts", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> int:
        """How many files could not be written so far."""
        return self._failed

    def write(self, name: str, rows: Rows) -> None:
        """Have `<folder>/<name>.parquet` written, replacing a file of that name; returns at once.

        With 4 files waiting it waits for room: a disk that is slower than training slows the run down, since the
        alternatives are a memory that fills up and data that goes missing.

        Args:
            name: of the file, without its suffix.
            rows: they, not to be changed any more, or what makes them; that is called in the thread.

        Raises:
            ValueError: the writer was closed.
        """
        if self._closed:
            raise ValueError(f"{name}: the rollout writer is closed")
        if not self._hand_over((name, rows)):
            self._lose(name, RuntimeError("the thread that writes has ended"))

    def close(self) -> None:
        """Wait until all that was handed over is written; calling it again does no harm."""
        if not self._closed:
            self._hand_over(None)
            self._closed = True
        self._thread.join()
        while not self._jobs.empty():  # only after a thread that died
            if (job := self._jobs.get()) is not None:
                self._lose(job[0], RuntimeError("the thread that writes has ended"))

    def _hand_over(self, job: tuple[str, Rows] | None) -> bool:
        """False when the thread is dead."""
        while self._thread.is_alive():
            with suppress(queue.Full):
                self._jobs.put(job, timeout=LOOK_AGAIN_S)
                return True
        return False

    def _work(self) -> None:
        for left_over in self._folder.glob(f".*{PARTIAL}"):
            with suppress(OSError):
                left_over.unlink()
        while (job := self._jobs.get()) is not None:
            name, rows = job
            try:
                write_file(self._path(name), rows() if callable(rows) else rows)
            except Exception as error:
                self._lose(name, error)
            del job, rows  # not to be kept alive while the next ones are awaited

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.parquet"

    def _lose(self, name: str, error: Exception) -> None:
        self._failed += 1
        cause = error.errno if isinstance(error, OSError) and error.errno else type(error)
        if cause not in self._causes:
            self._causes.add(cause)
            reason = error.strerror if isinstance(error, OSError) and error.strerror else _line(error)
            more = "; further files that this keeps from being written are counted only"
            self._warn(f"rollouts not written to {self._path(name)}: {reason}{more}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def write_file(path: Path, rows: Sequence[RolloutRow]) -> None:
    """Write one file, replacing what is there: whole, or not at all; its folder is made.

    Raises:
        OSError: it cannot be written.
    """
    table = table_of(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            pq.write_table(table, file, **FORMAT)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
