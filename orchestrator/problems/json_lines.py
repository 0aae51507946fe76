"""JSON lines as blocks: a block begins at a byte offset, its lines are decoded one by one when they are asked for."""

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from pydantic_core import from_json

from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.problems.blocks import BLOCK_BYTES, BLOCK_ROWS, Cells
from orchestrator.problems.config import ColumnsConfig
from orchestrator.problems.keys import Keys, Names, Path

LONGEST_LINE = BLOCK_BYTES  # else a file that is one long line would be read as a whole


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonBlock:
    """Some lines of a file, not decoded yet.

    Example:
        JsonBlock(
            path="train.jsonl", keys=keys, where=(0, 1), lines=[b'{"prompt": "347+285=", "answer": 632}'], numbers=[1]
        )
    """

    path: str
    keys: Keys
    where: tuple[int, int]  # byte offset, number of the line there
    lines: Sequence[bytes]
    numbers: Sequence[int]  # of the lines, from 1

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.lines)

    def place(self, row: int) -> str:
        """What a message calls a row."""
        return f"line {self.numbers[row]}"

    def cells(self, row: int) -> Cells:
        """What a row holds; ConfigError when the line is no JSON object."""
        values = _decoded(self.path, self.place(row), self.lines[row])
        keys = self.keys
        return Cells(*(_value(values, path) for path in (keys.prompt, keys.answer, keys.source, keys.extra)))


class JsonLines:
    """A file of JSON objects, one a line; lines of nothing but white space are passed over."""

    def __init__(self, path: str, keys: Keys) -> None:
        """Args: path: of the file; keys: what its rows have where."""
        self.keys = keys
        self._path = path

    @classmethod
    def open(cls, path: str, columns: ColumnsConfig) -> "JsonLines":
        """Look into the first row, which says what the others must have.

        Raises:
            ConfigError: it is no object or lacks a column, or there is no row.
            OSError: the file cannot be read.
        """
        with _at(path, 0) as file:
            lines, numbers, _ = _take(path, file, line=1, num_rows=1)
        if not lines:
            raise ConfigError(path, "", MISSING, "at least one problem; the file is empty")
        return cls(path, Keys.find(columns, _names(_decoded(path, f"line {numbers[0]}", lines[0])), path))

    def blocks(self) -> Iterator[JsonBlock]:
        """All rows, in one pass.

        Raises:
            ConfigError: a line is longer than a block may be.
            OSError: the file cannot be read.
        """
        line = 1
        with _at(self._path, 0) as file:
            while True:
                where = (file.tell(), line)
                lines, numbers, line = _take(self._path, file, line, BLOCK_ROWS)
                if not lines:
                    return
                yield JsonBlock(path=self._path, keys=self.keys, where=where, lines=lines, numbers=numbers)

    def load(self, where: tuple[int, int]) -> JsonBlock:
        """The block that begins there."""
        offset, line = where
        with _at(self._path, offset) as file:
            lines, numbers, _ = _take(self._path, file, line, BLOCK_ROWS)
        return JsonBlock(path=self._path, keys=self.keys, where=where, lines=lines, numbers=numbers)


def _at(path: str, offset: int) -> BinaryIO:
    """The file, opened at an offset; at 0, behind a byte order mark."""
    file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    if offset == 0 and file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
        offset = len(codecs.BOM_UTF8)
    file.seek(offset)
    return file


def _take(path: str, file: BinaryIO, line: int, num_rows: int) -> tuple[list[bytes], list[int], int]:
    """At most so many lines that hold something, and as many as fit into a block: they, their numbers, and the next."""
    lines: list[bytes] = []
    numbers: list[int] = []
    size = 0
    while size < BLOCK_BYTES and len(lines) < num_rows and (text := file.readline(LONGEST_LINE + 1)):
        if len(text) > LONGEST_LINE:
            raise ConfigError(path, f"line {line}", MISSING, f"a JSON object of at most {LONGEST_LINE} bytes")
        if not text.isspace():
            lines.append(text)
            numbers.append(line)
            size += len(text)
        line += 1
    return lines, numbers, line


def _decoded(path: str, place: str, line: bytes) -> dict[str, Any]:
    try:
        row = from_json(line)  # several times as fast as json
    except ValueError as error:
        why = re.sub(r" at line \d+ column \d+$", "", str(error))
        cut = "" if line.endswith(b"\n") else "; the file ends within this line"
        raise ConfigError(path, place, line.decode(errors="replace").strip(), f"a JSON object ({why}{cut})") from None
    if not isinstance(row, dict):
        raise ConfigError(path, place, row, "a JSON object")
    return row


def _names(row: Mapping[str, Any]) -> Names:
    return {name: _names(value) if isinstance(value, dict) else {} for name, value in row.items()}


def _value(row: Any, path: Path | None) -> Any:
    for name in path or ():
        row = row.get(name, MISSING) if isinstance(row, dict) else MISSING
    return MISSING if path is None else row
