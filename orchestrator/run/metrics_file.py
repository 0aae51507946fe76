"""A run's metrics as JSON lines: one object a step, each step once, also when it is done again."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.json_lines import json_objects
from orchestrator.records import StepRecord

# A step that is done again measures these anew, and everything else the same: exactly, or in the last digits where a
# library adds up in an order of its own.
MEASURED_ANEW = ("time/", "throughput/")
RELATIVE, ABSOLUTE = 1e-6, 1e-9
EVENT = "scheduler/event/"


class Entry(Enum):
    """What became of a step's metrics."""

    NEW = "new"
    SAME = "same"  # it stood there with these metrics: nothing was written
    REPLACED = "replaced"  # it stood there with others, which are gone with all that followed


class MetricsFile:
    """Appends a line a step; after `rewind`, steps come that stand there already, and those are compared.

    with MetricsFile(path) as metrics:
        metrics.write(0, {"reward/mean": 0.5})      # Entry.NEW
        metrics.rewind(0)
        metrics.write(0, {"reward/mean": 0.5})      # Entry.SAME
    """

    def __init__(self, path: Path) -> None:
        """Open for appending; a last line that was cut off is dropped."""
        self.path = path
        _drop_cut_off_line(path)
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._position = self._file.seek(0, os.SEEK_END)

    @property
    def position(self) -> int:
        """Bytes up to the end of the line of the step that was written last."""
        return self._position

    def write(self, step: int, metrics: Mapping[str, float]) -> Entry:
        """Record a step.

        Raises:
            ValueError: a metric is not finite: JSON knows no such numbers.
            OSError: the disk refuses; the file then ends with the last whole line.
        """
        line = (json.dumps({"step": step, **metrics}, allow_nan=False) + "\n").encode()
        self._file.seek(self._position)
        there = self._file.readline()
        if there and _same(json.loads(there), {"step": step, **metrics}):
            self._position += len(there)
            return Entry.SAME
        self._file.truncate(self._position)
        self._append(line)
        return Entry.REPLACED if there else Entry.NEW

    def _append(self, line: bytes) -> None:
        try:
            self._file.seek(self._position)
            written = self._file.write(line)
            while written < len(line):  # a disk that is filling up takes a part
                written += self._file.write(line[written:])
        except OSError:
            self._file.truncate(self._position)
            raise
        self._position += len(line)

    def rewind(self, position: int) -> None:
        """Go back to where an earlier `position` was: the steps after it are about to be done again."""
        self._position = position

    def ends_with(self, position: int, step: int) -> bool:
        """Whether the line that ends at `position` is that of `step`; step -1 is before the first line."""
        if position == 0 or step < 0:
            return position == 0 and step < 0
        self._file.seek(0)
        lines = self._file.read(position)
        try:
            found = json.loads(lines[:-1].rpartition(b"\n")[2])
        except ValueError:
            return False
        return len(lines) == position and isinstance(found, dict) and found.get("step") == step

    def last_step(self) -> int:
        """The step of the last line, -1 without any.

        Raises:
            ConfigError: it is no step's.
        """
        self._file.seek(0)
        line = self._file.read()[:-1].rpartition(b"\n")[2]
        for _, row in json_objects([line], str(self.path)):
            if isinstance(step := row.get("step"), int):
                return step
            raise ConfigError(str(self.path), "step", row.get("step", MISSING), "the number of the last line's step")
        return -1

    def rows(self) -> Iterator[StepRecord]:
        """All steps that stand there, as they were recorded.

        Raises:
            ConfigError: a line is no JSON object.
        """
        with self.path.open("rb") as file:
            for _, row in json_objects(file, str(self.path)):
                yield _record(row)

    def sync(self) -> int:
        """Make sure that what was written is on the disk; returns `position`."""
        os.fsync(self._file.fileno())
        return self._position

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _drop_cut_off_line(path: Path) -> None:
    """Cut a file back to its last whole line, so that what is appended does not continue a torn one."""
    if path.exists():
        whole = path.read_bytes().rpartition(b"\n")
        os.truncate(path, len(whole[0] + whole[1]))


def _same(there: Any, now: Mapping[str, float]) -> bool:
    old, new = ({key: row[key] for key in row if not key.startswith(MEASURED_ANEW)} for row in (there, now))
    return old.keys() == new.keys() and all(
        math.isclose(old[key], new[key], rel_tol=RELATIVE, abs_tol=ABSOLUTE) for key in old
    )


def _record(row: Mapping[str, Any]) -> StepRecord:
    metrics = {key: float(value) for key, value in row.items() if key != "step"}
    events = tuple(key.removeprefix(EVENT) for key in metrics if key.startswith(EVENT))
    return StepRecord(
        step=int(row["step"]), time_ms=int(1000 * metrics.get("time/ended_s", 0.0)), metrics=metrics, events=events
    )
