"""Tables of metrics as a file holds them, JSON lines, CSV or Parquet: the asked-for columns, their cells unchecked."""

import csv
import io
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.json_lines import json_objects
from orchestrator.run.folder import METRICS

if TYPE_CHECKING:
    import pyarrow as pa

STEP = "step"  # the column that every trace has
NO_NUMBER = {"", "nan", "null", "none", "na", "n/a", "<na>"}  # what a CSV cell may say instead of one, lower-case
SAFE_DIGITS = 18  # as many make no integer that exceeds 64 bits
SOURCES = "a .jsonl, .csv or .parquet file, a run folder or an MLflow run id"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceTable:
    """Columns of a source, cell by cell as they stand there.

    Example:
        TraceTable(source="run.csv", keys=["step", "reward/mean"], cells={"step": [0, 1]}, unit="line", numbers=[2, 3])
    """

    source: str  # its name in messages
    keys: list[str]  # of all its columns
    cells: dict[str, list[Any]]  # [N] of the columns asked for that it has; None where a row has no value
    unit: str  # of the numbers: "line" or "row"
    numbers: Sequence[int]  # [N] where each row stands

    def place(self, row: int) -> str:
        """What a message calls a row, counted from 0: "line 7"."""
        return f"{self.unit} {self.numbers[row]}"


def names_a_file(source: str) -> bool:
    """Whether `source` is meant as a file or folder: it exists, or looks like a path."""
    path = Path(source)
    return os.path.exists(source) or path.suffix != "" or path.name != source  # Path.exists raises on a very long name


def file_of(source: str) -> Path:
    """The file that is read when `source` names a file or folder: of a run folder, its metrics."""
    return Path(source) / METRICS if os.path.isdir(source) else Path(source)


def read_table(source: str, wanted: Collection[str]) -> TraceTable:
    """The columns `wanted`, as far as the file has them.

    Args:
        source: a .jsonl, .csv or .parquet file, or a run folder, of which metrics.jsonl is read.
        wanted: names of columns.

    Raises:
        ConfigError: the file cannot be read or is malformed; with the line where that is known.
    """
    path = file_of(source)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(source, "", MISSING, SOURCES)
    if not os.path.isfile(path):
        raise ConfigError(str(path), "", MISSING, "a readable file (it is not there)")
    try:
        return reader(path, wanted)
    except OSError as error:
        raise ConfigError(str(path), "", MISSING, f"a readable file ({error.strerror})") from None


def _json_table(path: Path, wanted: Collection[str]) -> TraceTable:
    keys: set[str] = set()
    lines: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    for number, row in json_objects(io.BytesIO(path.read_bytes()), str(path)):
        if not keys.issuperset(row):
            keys.update(row)
        lines.append(number)
        for name, cells in columns.items():
            cells.append(row.get(name))
    present = {name: cells for name, cells in columns.items() if name in keys}
    return TraceTable(source=str(path), keys=sorted(keys), cells=present, unit="line", numbers=lines)


def _csv_table(path: Path, wanted: Collection[str]) -> TraceTable:
    rows = _csv_rows(path)
    _, header = next(rows, (0, []))
    if not header:
        raise ConfigError(str(path), "", MISSING, "a line with the names of the columns, then a line per step")
    keys = [name.strip() for name in header]
    columns: dict[str, list[str]] = {name: [] for name in _present(path, keys, wanted)}
    picks = [(column, keys.index(name)) for name, column in columns.items()]
    lines = []
    for number, row in rows:
        if len(row) != len(keys):
            raise ConfigError(str(path), f"line {number}", f"{len(row)} cells", f"{len(keys)}, as the header has")
        lines.append(number)
        for column, position in picks:
            column.append(row[position])
    cells = {name: [_csv_value(text) for text in column] for name, column in columns.items()}
    return TraceTable(source=str(path), keys=keys, cells=cells, unit="line", numbers=lines)


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, cells), the header included; empty lines are passed over."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(path), f"line {line}", MISSING, f"UTF-8 text ({error.reason})") from None
    header, _, body = text.partition("\n")
    plain = '"' not in body and "\r" not in text  # then to split is to read, in half of the time
    rows = csv.reader([header] if plain else io.StringIO(text, newline=""), strict=True)
    try:
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise ConfigError(str(path), f"line {rows.line_num}", MISSING, f"a CSV row ({error})") from None
    if plain:
        yield from ((number, line.split(",")) for number, line in enumerate(body.split("\n"), start=2) if line)


def _csv_value(text: str) -> Any:
    """The number that a cell holds, None where it has none, and other text as it is."""
    if text.removeprefix("-").isdecimal() and text.isascii() and len(text) <= SAFE_DIGITS:
        return int(text)
    try:
        return text if "_" in text or not text.isascii() else float(text)  # Python's float would read 1_000
    except ValueError:
        return None if text.strip().lower() in NO_NUMBER else text


def _parquet_table(path: Path, wanted: Collection[str]) -> TraceTable:
    import pyarrow as pa  # noqa: PLC0415 - a tenth of the time that a replay may take, for this format only
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        file = pq.ParquetFile(path)
        keys = file.schema_arrow.names
        names = _present(path, keys, wanted)
        table = file.read(columns=names)
        cells = {name: _parquet_cells(table.column(name)) for name in names}
    except ConfigError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(str(path), "", MISSING, f"an intact Parquet file ({' '.join(str(error).split())})") from None
    return TraceTable(source=str(path), keys=keys, cells=cells, unit="row", numbers=range(table.num_rows))


def _parquet_cells(column: "pa.ChunkedArray") -> list[Any]:
    """The cells; in a column of neither numbers nor text the name of its type, as not all dates have a Python value."""
    import pyarrow.types as kinds  # noqa: PLC0415

    kind = column.type.value_type if kinds.is_dictionary(column.type) else column.type
    numbers = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind)
    texts = kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)
    if numbers or texts or kinds.is_boolean(kind) or kinds.is_null(kind):
        return column.to_pylist()  # type: ignore[no-any-return]  # pyarrow has no types
    return [str(kind) if there else None for there in column.is_valid().to_pylist()]


def _present(path: Path, keys: Sequence[str], wanted: Collection[str]) -> list[str]:
    """Those of the wanted columns that are there."""
    for name in wanted:
        if keys.count(name) > 1:
            raise ConfigError(str(path), name, MISSING, "one column of that name; there are several")
    return [name for name in wanted if name in keys]


READERS = {".jsonl": _json_table, ".csv": _csv_table, ".parquet": _parquet_table}
