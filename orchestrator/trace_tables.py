"""Tables of metrics as a file holds them, JSON lines, CSV or Parquet: the asked-for columns, their cells unchecked."""

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.run_folder import METRICS

STEP = "step"  # the column that every trace has
NO_NUMBER = {"", "nan", "null", "none", "na", "n/a", "<na>"}  # what a CSV cell may say instead of one, lower-case
SAFE_DIGITS = 18  # as many make no integer that exceeds 64 bits


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
    return path.exists() or path.suffix != "" or path.name != source


def read_table(source: str, wanted: Collection[str]) -> TraceTable:
    """The columns `wanted`, as far as the file has them.

    Args:
        source: a .jsonl, .csv or .parquet file, or a run folder, of which metrics.jsonl is read.
        wanted: names of columns.

    Raises:
        ConfigError: the file cannot be read or is malformed; with the line where that is known.
    """
    path = Path(source) / METRICS if Path(source).is_dir() else Path(source)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(source, "", MISSING, "a .jsonl, .csv or .parquet file, a run folder or an MLflow run id")
    if not path.is_file():
        raise ConfigError(str(path), "", MISSING, "a readable file (it is not there)")
    try:
        return reader(path, wanted)
    except OSError as error:
        raise ConfigError(str(path), "", MISSING, f"a readable file ({error.strerror})") from None


def _json_table(path: Path, wanted: Collection[str]) -> TraceTable:
    keys: set[str] = set()
    lines: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    for number, row in _json_rows(path):
        if not keys.issuperset(row):
            keys.update(row)
        lines.append(number)
        for name, cells in columns.items():
            cells.append(row.get(name))
    present = {name: cells for name, cells in columns.items() if name in keys}
    return TraceTable(source=str(path), keys=sorted(keys), cells=present, unit="line", numbers=lines)


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object); lines of nothing but white space are passed over."""
    for number, line in enumerate(io.BytesIO(path.read_bytes().removeprefix(codecs.BOM_UTF8)), start=1):
        try:
            row = from_json(line)  # several times as fast as json, which would take longer than all the rest
        except ValueError as error:
            if line.isspace():
                continue
            why = re.sub(r" at line \d+ column \d+$", "", str(error))
            cut = "" if line.endswith(b"\n") else "; the file ends within this line"
            text = line.decode(errors="replace").strip()
            raise ConfigError(str(path), f"line {number}", text, f"a JSON object ({why}{cut})") from None
        if not isinstance(row, dict):
            raise ConfigError(str(path), f"line {number}", row, "a JSON object")
        yield number, row


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
        cells = {name: table.column(name).to_pylist() for name in names}
    except ConfigError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(str(path), "", MISSING, f"an intact Parquet file ({' '.join(str(error).split())})") from None
    return TraceTable(source=str(path), keys=keys, cells=cells, unit="row", numbers=range(table.num_rows))


def _present(path: Path, keys: Sequence[str], wanted: Collection[str]) -> list[str]:
    """Those of the wanted columns that are there."""
    for name in wanted:
        if keys.count(name) > 1:
            raise ConfigError(str(path), name, MISSING, "one column of that name; there are several")
    return [name for name in wanted if name in keys]


READERS = {".jsonl": _json_table, ".csv": _csv_table, ".parquet": _parquet_table}
