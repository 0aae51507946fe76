"""Parquet as blocks: small row groups are put together, large ones cut, and only the columns that are needed read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.problems.blocks import BLOCK_BYTES, BLOCK_ROWS, Cells
from orchestrator.problems.config import ColumnsConfig
from orchestrator.problems.keys import Keys, Names, Path

ROWS_AT_ONCE = 1024
PAGES_AT_ONCE = 2**20  # bytes that are read ahead of a column: without this, all that a row group has of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Where a block lies: some row groups as a whole, or a part of one.

    Example:
        Span(first=40_000, groups=range(4, 5), skip=8_192, rows=8_192)
    """

    first: int  # row of the file
    groups: range
    skip: int  # rows of the group that lie before it
    rows: int


class ParquetBlock:
    """Some rows of a file, decoded as far as Arrow does."""

    def __init__(self, path: str, span: Span, number: int, columns: Sequence[Any]) -> None:
        """Define the block.

        Args:
            path: of the file.
            span: where it lies in it.
            number: of the block.
            columns: the Arrow arrays [rows] of the four cells; None where the file has no such column.
        """
        self.where = (number, span.first)
        self._path = path
        self._columns = columns
        self._rows = span.rows

    def __len__(self) -> int:
        """Number of rows."""
        return self._rows

    def place(self, row: int) -> str:
        """What a message calls a row."""
        return f"row {self.where[1] + row}"

    def cells(self, row: int) -> Cells:
        """What a row holds; ConfigError when a text is no UTF-8."""
        try:
            return Cells(*(MISSING if column is None else column[row].as_py() for column in self._columns))
        except ValueError as error:
            raise ConfigError(self._path, self.place(row), MISSING, f"readable values ({error})") from None


class ParquetRows:
    """A Parquet file."""

    def __init__(self, path: str, metadata: Any, keys: Keys) -> None:
        """Args: path: of the file; metadata: pyarrow's, of that file; keys: what its rows have where."""
        self.keys = keys
        self._path = path
        self._metadata = metadata
        self._wanted = [".".join(path) for path in keys.paths()]
        self._spans = list(_spans(metadata, self._wanted))

    @classmethod
    def open(cls, path: str, columns: ColumnsConfig) -> "ParquetRows":
        """Look into the schema.

        Raises:
            ConfigError: it is no Parquet file, has no rows, lacks a column or has two of the same name.
        """
        with _intact(path), pq.ParquetFile(path) as file:
            metadata, schema = file.metadata, file.schema_arrow
        keys = Keys.find(columns, _names(schema, path), path)
        if metadata.num_rows == 0:
            raise ConfigError(path, "", MISSING, "at least one problem; the file is empty")
        return cls(path, metadata, keys)

    def blocks(self) -> Iterator[ParquetBlock]:
        """All rows, in one pass; ConfigError when the file is damaged inside."""
        number = 0
        for groups, found in groupby(self._spans, key=lambda span: span.groups):
            spans = list(found)
            for batch in self._cut(groups, 0, [span.rows for span in spans]):
                yield self._block(number, batch)
                number += 1

    def load(self, where: tuple[int, int]) -> ParquetBlock:
        """The block of that number. In a row group that was cut, what lies before it is decoded and dropped."""
        number, _ = where
        span = self._spans[number]
        return self._block(number, next(self._cut(span.groups, span.skip, [span.rows])))

    def _block(self, number: int, batch: Any) -> ParquetBlock:
        keys = self.keys
        paths = (keys.prompt, keys.answer, keys.source, keys.extra)
        columns = [None if path is None else _column(batch, path) for path in paths]
        return ParquetBlock(self._path, self._spans[number], number, columns)

    def _cut(self, groups: range, skip: int, sizes: Sequence[int]) -> Iterator[Any]:
        """Record batches of these sizes from some row groups, the first one after `skip` rows."""
        batches = self._batches(groups, skip, min(ROWS_AT_ONCE, max(sizes)))
        held: list[Any] = []
        missing = 0
        for size in sizes:
            missing += size
            while missing > 0:
                batch = next(batches, None)
                if batch is None:
                    raise ConfigError(
                        self._path, "", MISSING, "an intact Parquet file (it has fewer rows than it says)"
                    )
                held.append(batch)
                missing -= batch.num_rows
            whole = pa.concat_batches(held)
            held = [whole.slice(size)]
            yield whole.slice(0, size)

    def _batches(self, groups: range, skip: int, rows_at_once: int) -> Iterator[Any]:
        with (
            _intact(self._path),
            pq.ParquetFile(self._path, metadata=self._metadata, pre_buffer=False, buffer_size=PAGES_AT_ONCE) as file,
        ):
            for batch in file.iter_batches(rows_at_once, list(groups), self._wanted):
                if skip < batch.num_rows:
                    yield batch.slice(skip)
                skip = max(0, skip - batch.num_rows)


@contextmanager
def _intact(path: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(path, "", MISSING, f"an intact Parquet file ({why})") from None


def _names(fields: Any, path: str) -> Names:
    """Of the fields of a schema or a struct type."""
    names: dict[str, Any] = {}
    for field in fields:
        if field.name in names:
            raise ConfigError(path, field.name, MISSING, "one column of that name; there are several")
        names[field.name] = _names(field.type, path) if pa.types.is_struct(field.type) else {}
    return names


def _column(batch: Any, path: Path) -> Any:
    """[rows] an Arrow array: a column, or a field of it."""
    column = batch.column(path[0])
    if path[1:]:
        column = pc.struct_field(column, list(path[1:]))
    # As text and back, 0.1 in single precision stays 0.1; as a Python float it would be 0.10000000149011612.
    return column.cast(pa.string()).cast(pa.float64()) if pa.types.is_float32(column.type) else column


def _spans(metadata: Any, wanted: Sequence[str]) -> Iterator[Span]:
    """The blocks of a file: neighbouring row groups as long as they fit into one, and a larger one cut."""
    read = [index for index in range(metadata.num_columns) if _is_read(metadata.schema.column(index).path, wanted)]
    first = group = rows = size = 0
    for number in range(metadata.num_row_groups):
        more = metadata.row_group(number)
        more_bytes = sum(more.column(index).total_uncompressed_size for index in read)
        if rows and (rows + more.num_rows > BLOCK_ROWS or size + more_bytes > BLOCK_BYTES):
            yield from _parts(first, range(group, number), rows, size)
            first, group, rows, size = first + rows, number, 0, 0
        rows, size = rows + more.num_rows, size + more_bytes
    yield from _parts(first, range(group, metadata.num_row_groups), rows, size)


def _is_read(path: str, wanted: Sequence[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in wanted)


def _parts(first: int, groups: range, rows: int, size: int) -> Iterator[Span]:
    at_once = max(1, min(BLOCK_ROWS, rows, rows * BLOCK_BYTES // max(size, 1)))
    for skip in range(0, rows, at_once):
        yield Span(first=first + skip, groups=groups, skip=skip, rows=min(at_once, rows - skip))
