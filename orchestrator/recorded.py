"""Recorded log-probs, from JSON lines or Parquet, reduced to the mismatch of the whole file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.statistics import MismatchSums, NonFiniteLogprob
from orchestrator.config_errors import MISSING, ConfigError

COLUMNS = ("train_logprobs", "rollout_logprobs")
ROWS_AT_ONCE = 1024
Row = tuple[np.ndarray, np.ndarray]


def read_mismatch(path: str) -> MismatchSums:
    """Sufficient statistics of all sequences in a file, read in pieces.

    Args:
        path: `.jsonl` (an object a line) or `.parquet`, with the list columns train_logprobs and rollout_logprobs.

    Raises:
        ConfigError: with file, line or row, and what is wrong there.
    """
    suffix = Path(path).suffix
    if suffix not in (".jsonl", ".parquet"):
        raise ConfigError(path, "", MISSING, "a .jsonl or .parquet file")
    if not Path(path).is_file():
        raise ConfigError(path, "", MISSING, "a readable file (it is not there)")
    unit, first = ("line", 1) if suffix == ".jsonl" else ("row", 0)
    total = MismatchSums.empty()
    for number, rows in _pieces(_json_rows(path) if suffix == ".jsonl" else _parquet_rows(path)):
        total = total.merge(_reduce(path, rows, unit, first + number))
    if total.sequences == 0:
        raise ConfigError(path, "", MISSING, "at least one sequence with at least one token")
    return total


def _pieces(rows: Iterator[Row]) -> Iterator[tuple[int, list[Row]]]:
    start, piece = 0, []
    for row in rows:
        piece.append(row)
        if len(piece) == ROWS_AT_ONCE:
            yield start, piece
            start, piece = start + len(piece), []
    if piece:
        yield start, piece


def _reduce(path: str, rows: list[Row], unit: str, first: int) -> MismatchSums:
    for i, (train, rollout) in enumerate(rows):
        if len(train) != len(rollout):
            place = f"{unit} {first + i}: rollout_logprobs"
            raise ConfigError(path, place, f"{len(rollout)} values", f"as many as train_logprobs has ({len(train)})")
    lengths = np.array([len(train) for train, _ in rows])
    try:
        return MismatchSums.from_logprobs(
            np.concatenate([train for train, _ in rows]), np.concatenate([rollout for _, rollout in rows]), lengths
        )
    except NonFiniteLogprob as error:
        place = f"{unit} {first + error.sequence}: {error.column}_logprobs[{error.token}]"
        raise ConfigError(path, place, error.value, "a finite number") from None


def _json_rows(path: str) -> Iterator[Row]:
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ConfigError(
                    path, f"line {number}", line.decode(errors="replace").strip(), f"a JSON object ({error})"
                ) from None
            if not isinstance(row, dict):
                raise ConfigError(path, f"line {number}", row, "a JSON object")
            train, rollout = (_json_column(path, number, row, column) for column in COLUMNS)
            yield train, rollout


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


def _batches(file: pq.ParquetFile, path: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(COLUMNS))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(path, "", MISSING, f"an intact Parquet file ({' '.join(str(error).split())})") from None


def _parquet_rows(path: str) -> Iterator[Row]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(path, "", MISSING, f"a Parquet file ({' '.join(str(error).split())})") from None
    for column in COLUMNS:
        if file.schema_arrow.names.count(column) != 1:
            raise ConfigError(
                path, column, MISSING, f"one list column of that name; the columns are {file.schema_arrow.names}"
            )
        kind = file.schema_arrow.field(column).type
        if (not pa.types.is_list(kind) and not pa.types.is_large_list(kind)) or not pa.types.is_floating(
            kind.value_type
        ):
            raise ConfigError(path, column, str(kind), "a list column of floating-point numbers")
    row = 0
    for batch in _batches(file, path):
        for train, rollout in zip(*(batch.column(column) for column in COLUMNS), strict=True):
            for column, value in zip(COLUMNS, (train, rollout), strict=True):
                if not value.is_valid:
                    raise ConfigError(path, f"row {row}: {column}", "null", "a list of numbers")
            yield train.values.to_numpy(zero_copy_only=False), rollout.values.to_numpy(zero_copy_only=False)
            row += 1
