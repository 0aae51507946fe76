"""Recorded log-probs, from JSON lines or Parquet, checked and read in pieces; the mismatch of the whole file."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.statistics import MismatchSums, NonFiniteLogprob
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.json_lines import json_objects

COLUMNS = ("train_logprobs", "rollout_logprobs")
ROWS_AT_ONCE = 1024
TOKENS_AT_ONCE = 262_144  # or a little more: a piece holds whole sequences
Cells = dict[str, Any]


class Row(NamedTuple):
    """A recorded sequence.

    Example:
        Row(train=array([-0.5, -1.0]), rollout=array([-0.25, -1.5]), cells=read_cells)
    """

    train: np.ndarray  # [T]
    rollout: np.ndarray  # [T]
    cells: Callable[[Collection[str]], Cells]  # further columns of the row, those of the names given that are there


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some neighbouring sequences of a file, checked: as many log-probs from both engines, all of them finite.

    Example:
        Piece(unit="line", first=1025, rows=[row, row], sums=MismatchSums(tokens=4, sequences=2))
    """

    unit: str  # "line" or "row"
    first: int  # number of the first sequence, in that unit
    rows: list[Row]
    sums: MismatchSums


def read_mismatch(path: str) -> MismatchSums:
    """Sufficient statistics of all sequences in a file, read in pieces; raises what `read_pieces` does."""
    total = MismatchSums.empty()
    for piece in read_pieces(path):
        total = total.merge(piece.sums)
    return total


def read_pieces(path: str, others: Collection[str] = ()) -> Iterator[Piece]:
    """All sequences of a file in its order, with at least one token in all.

    Args:
        path: `.jsonl` (an object a line, blank lines passed over) or `.parquet`, with the list columns train_logprobs
            and rollout_logprobs.
        others: further columns to read where they are there.

    Raises:
        ConfigError: with file, line or row, and what is wrong there.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".jsonl", ".parquet"):
        raise ConfigError(path, "", MISSING, "a .jsonl or .parquet file")
    if not Path(path).is_file():
        raise ConfigError(path, "", MISSING, "a readable file (it is not there)")
    unit, read = ("line", _json_rows) if suffix == ".jsonl" else ("row", _parquet_rows)
    tokens = 0
    for first, rows in _cut(read(path, others)):
        sums = _reduce(path, rows, unit, first)
        tokens += sums.tokens
        yield Piece(unit=unit, first=first, rows=rows, sums=sums)
    if not tokens:
        raise ConfigError(path, "", MISSING, "at least one sequence with at least one token")


def _cut(rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, list[Row]]]:
    """(number of the first, rows with consecutive numbers)."""
    start, tokens = 0, 0
    piece: list[Row] = []
    for number, row in rows:
        if piece and (number != start + len(piece) or len(piece) == ROWS_AT_ONCE or tokens >= TOKENS_AT_ONCE):
            yield start, piece
            tokens, piece = 0, []
        if not piece:
            start = number
        piece.append(row)
        tokens += len(row.train)
    if piece:
        yield start, piece


def _reduce(path: str, rows: list[Row], unit: str, first: int) -> MismatchSums:
    for i, (train, rollout, _) in enumerate(rows):
        if len(train) != len(rollout):
            place = f"{unit} {first + i}: rollout_logprobs"
            raise ConfigError(path, place, f"{len(rollout)} values", f"as many as train_logprobs has ({len(train)})")
    lengths = np.array([len(row.train) for row in rows])
    try:
        return MismatchSums.from_logprobs(
            np.concatenate([row.train for row in rows]), np.concatenate([row.rollout for row in rows]), lengths
        )
    except NonFiniteLogprob as error:
        place = f"{unit} {first + error.sequence}: {error.column}_logprobs[{error.token}]"
        raise ConfigError(path, place, error.value, "a finite number") from None


def _json_rows(path: str, others: Collection[str]) -> Iterator[tuple[int, Row]]:
    with open(path, "rb") as lines:
        for number, row in json_objects(lines, path):
            train, rollout = (_json_column(path, number, row, column) for column in COLUMNS)
            yield number, Row(train, rollout, partial(_chosen, {name: row[name] for name in others if name in row}))


def _chosen(cells: Cells, names: Collection[str]) -> Cells:
    return {name: cells[name] for name in names if name in cells}


def _json_column(path: str, number: int, row: dict[str, Any], column: str) -> np.ndarray:
    value = row.get(column, MISSING)
    place = f"line {number}: {column}"
    if not isinstance(value, list):
        expected = "a list of numbers" if column in row else f"a list of numbers; the keys are {sorted(row)}"
        raise ConfigError(path, place, value, expected)
    for i, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, int | float):
            raise ConfigError(path, f"{place}[{i}]", item, "a finite number")
    try:
        return np.array(value, np.float64)
    except OverflowError as error:
        raise ConfigError(path, place, MISSING, f"finite numbers ({error})") from None


def _batches(file: pq.ParquetFile, path: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(path, "", MISSING, f"an intact Parquet file ({' '.join(str(error).split())})") from None


def _parquet_rows(path: str, others: Collection[str]) -> Iterator[tuple[int, Row]]:
    try:
        file = pq.ParquetFile(path, pre_buffer=False)  # buffers are kept to the end: the whole file in memory
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(path, "", MISSING, f"a Parquet file ({' '.join(str(error).split())})") from None
    for column in COLUMNS:
        _check_column(file.schema_arrow, path, column)
    known = [name for name in others if file.schema_arrow.names.count(name) == 1]
    row = 0
    for batch in _batches(file, path, [*COLUMNS, *known]):
        columns = {name: batch.column(name) for name in (*COLUMNS, *known)}
        for i in range(len(batch)):
            train, rollout = (_logprobs(path, row, columns, column, i) for column in COLUMNS)
            yield row, Row(train, rollout, partial(_cells, columns, i))
            row += 1


def _logprobs(path: str, row: int, columns: Mapping[str, pa.Array], name: str, i: int) -> np.ndarray:
    value = columns[name][i]
    if not value.is_valid:
        raise ConfigError(path, f"row {row}: {name}", "null", "a list of numbers")
    return value.values.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]  # pyarrow has no types


def _check_column(schema: pa.Schema, path: str, column: str) -> None:
    if schema.names.count(column) != 1:
        raise ConfigError(path, column, MISSING, f"one list column of that name; the columns are {schema.names}")
    kind = schema.field(column).type
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_list(kind) for is_list in lists) or not pa.types.is_floating(kind.value_type):
        raise ConfigError(path, column, str(kind), "a list column of floating-point numbers")


def _cells(columns: Mapping[str, pa.Array], row: int, names: Collection[str]) -> Cells:
    return {name: columns[name][row].as_py() for name in names if name in columns}
