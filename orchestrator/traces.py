"""A recorded run: its steps and the metrics that a learning-rate policy reads, checked row by row."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.trace_tables import SOURCES, STEP, TraceTable, names_a_file, read_table
from orchestrator.tracking.histories import read_history, tracking_uri

LARGEST_STEP = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a run has recorded, as far as it was asked for.

    Example:
        Trace(source="metrics.jsonl", steps=array([0, 1]), columns={"response/length_mean": array([812.5, nan])})
    """

    source: str  # its name in messages
    steps: NDArray[np.int64]  # [N], N > 0, growing
    columns: Mapping[str, NDArray[np.float64]]  # [N] each; NaN where a value is missing or not finite

    def rows(self) -> Iterator[tuple[int, dict[str, float]]]:
        """(step, metrics) row by row, as a policy observes them."""
        names = list(self.columns)
        for step, *values in zip(self.steps.tolist(), *(self.columns[name].tolist() for name in names), strict=True):
            yield step, dict(zip(names, values, strict=True))


class Renames:
    """Recorded columns that are to be read under another name.

    >>> renames = Renames.parse(["global_step=step", "response_length/mean=response/length_mean"])
    >>> renames.recorded("step"), renames.recorded("gradient/norm")
    ('global_step', 'gradient/norm')
    """

    def __init__(self, old_names: Mapping[str, str]) -> None:
        """Args: old_names: the recorded name of each new one."""
        self._old_names = dict(old_names)

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "Renames":
        """From `OLD=NEW` each; ConfigError when one is not of that form, or a name is used twice on its side."""
        old_names: dict[str, str] = {}
        for text in texts:
            old, equals, new = text.rpartition("=")
            if not (equals and old and new):
                raise ConfigError("--map", "", text, "OLD=NEW, a recorded column and the name to read it under")
            if new in old_names or old in old_names.values():
                raise ConfigError("--map", "", text, "columns and names that no other --map has")
            old_names[new] = old
        return cls(old_names)

    def recorded(self, name: str) -> str:
        """The name under which the column `name` was recorded."""
        return self._old_names.get(name, name)

    def names(self) -> set[str]:
        """All names, old and new: what a source must be asked about for `check`."""
        return {*self._old_names, *self._old_names.values()}

    def check(self, table: TraceTable) -> None:
        """ConfigError unless the table has every old name and no new one."""
        for new, old in self._old_names.items():
            if old not in table.keys:
                raise ConfigError("--map", "", f"{old}={new}", f"a column of {table.source}; {_known(old, table.keys)}")
            if new in table.keys:
                raise ConfigError("--map", "", f"{old}={new}", f"a new name; {table.source} has a column {new!r}")


def read_trace(source: str, signals: Sequence[str], renames: Renames, uri: str | None, runs: Path) -> Trace:
    """The steps of a recorded run and the `signals`, in its order.

    Args:
        source: a .jsonl, .csv or .parquet file, a run folder, or the id of an MLflow run.
        signals: the metrics to read, by the names that the trace is to have for them.
        renames: how the source calls its columns where it calls them otherwise.
        uri: MLflow tracking URI, should `source` be a run id; see `tracking_uri`.
        runs: the folder that holds all runs, and maybe MLflow's database.

    Raises:
        ConfigError: with line or row: a malformed one, a step that is missing, no whole number or not after the one
            before, a signal that is no number; or no rows, no such column, no finite number in all of a signal.
    """
    if not source:
        raise ConfigError("TRACE", "", source, SOURCES)
    wanted = {renames.recorded(name) for name in (STEP, *signals)} | renames.names()
    if names_a_file(source):
        table = read_table(source, wanted)
    else:
        table = read_history(source, wanted, tracking_uri(uri, runs, source))
    return _checked(table, signals, renames)


def _checked(table: TraceTable, signals: Sequence[str], renames: Renames) -> Trace:
    if not table.numbers:
        raise ConfigError(table.source, "", MISSING, "at least one step; it has none")
    renames.check(table)
    steps = _steps(table, _column(table, STEP, renames), renames.recorded(STEP))
    columns = {name: _numbers(table, _column(table, name, renames), renames.recorded(name)) for name in signals}
    for name, values in columns.items():
        if np.isnan(values).all():
            raise ConfigError(table.source, renames.recorded(name), MISSING, "a finite number in at least one row")
    return Trace(source=table.source, steps=steps, columns=columns)


def _column(table: TraceTable, name: str, renames: Renames) -> list[Any]:
    recorded = renames.recorded(name)
    if recorded not in table.cells:
        hint = f"--map {(_close(name, table.keys) or ['OLD'])[0]}={name} renames a column"
        raise ConfigError(table.source, name, MISSING, f"a column of that name; {_known(name, table.keys)}; {hint}")
    return table.cells[recorded]


def _known(name: str, keys: Sequence[str]) -> str:
    meant = " or ".join(repr(key) for key in _close(name, keys))
    return f"the columns are {', '.join(keys)}" + (f"; did you mean {meant}?" if meant else "")


def _close(name: str, keys: Sequence[str]) -> list[str]:
    """Names that are spelled alike, or else those that contain this one, as global_step does step."""
    return get_close_matches(name, keys, n=3) or [key for key in keys if name in key][:3]


def _steps(table: TraceTable, cells: Sequence[Any], name: str) -> NDArray[np.int64]:
    steps: list[int] = []
    last = -1
    for row, cell in enumerate(cells):
        step = _whole(cell)
        if step is None or step <= last:
            missing = "; it is missing" if cell is None else ""
            expected = f"a whole number from 0 on{missing}" if step is None else f"more than {last}, the step before it"
            raise ConfigError(table.source, f"{table.place(row)}: {name}", MISSING if missing else cell, expected)
        steps.append(step)
        last = step
    return np.array(steps, np.int64)


def _whole(cell: Any) -> int | None:
    """The step number in a cell; None when it holds none. 7.0 is one: tables with gaps turn integers into floats."""
    if isinstance(cell, float | Decimal) and 0 <= cell <= LARGEST_STEP and cell == int(cell):
        cell = int(cell)
    return cell if type(cell) is int and 0 <= cell <= LARGEST_STEP else None


def _numbers(table: TraceTable, cells: Sequence[Any], name: str) -> NDArray[np.float64]:
    for row, cell in enumerate(cells):
        if cell is not None and (isinstance(cell, bool) or not isinstance(cell, int | float | Decimal)):
            raise ConfigError(table.source, f"{table.place(row)}: {name}", cell, "a number")
    values = np.array([_float(cell) for cell in cells])
    return np.where(np.isfinite(values), values, np.nan)


def _float(cell: float | Decimal | None) -> float:
    try:
        return np.nan if cell is None else float(cell)
    except OverflowError:  # an integer beyond all floats
        return np.nan
