"""Files of problems, checked as a whole when they are opened, then read block by block and in any order."""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.problems.blocks import Block, BlockFile
from orchestrator.problems.config import ColumnsConfig
from orchestrator.problems.json_lines import JsonLines
from orchestrator.problems.parquet import ParquetRows
from orchestrator.problems.problem import Problem
from orchestrator.problems.rows import RowReader

FORMATS: dict[str, Callable[[str, ColumnsConfig], BlockFile]] = {
    ".jsonl": JsonLines.open,
    ".parquet": ParquetRows.open,
}
CACHED_BLOCKS = 2  # a batch may reach from one block into the next


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlock:
    """A block of a file that has been checked.

    Example:
        StoredBlock(path="train.jsonl", stamp=(734_201, 1760), file=file, reader=reader, where=(0, 1), rows=512)
    """

    path: str
    stamp: tuple[int, int]  # size and time of change of the file when it was checked
    file: BlockFile
    reader: RowReader
    where: tuple[int, int]  # in the file
    rows: int


class ProblemFiles:
    """The problems of one or more files, one file after the other, by their number from 0.

    At most two blocks are held in memory (see `blocks`), whatever the files are large.

    problems = ProblemFiles.open(["~/data/train.parquet"], config, "gsm8k.yaml", "task.train")
    problems.problem(len(problems) - 1)
    """

    def __init__(self, stored: Sequence[StoredBlock]) -> None:
        """Args: stored: all blocks, at least one."""
        self._stored = stored
        self._starts = list(accumulate((block.rows for block in stored), initial=0))
        self._load = lru_cache(CACHED_BLOCKS)(self._read)

    @classmethod
    def open(cls, paths: str | Sequence[str], columns: ColumnsConfig, file_label: str, field: str) -> "ProblemFiles":
        """Read all rows of all files once, and keep where they are.

        Args:
            paths: of .parquet and .jsonl files; relative ones from the working directory, `~` is the home folder.
            columns: what is to be read of them.
            file_label: the experiment file, for messages.
            field: the key in it that has the paths.

        Raises:
            ConfigError: with file, row or line, and column: a row without prompt or answer, or one of another type; a
                column that is not there; a file that is damaged, empty or none.
        """
        paths = [paths] if isinstance(paths, str) else paths
        if not paths:
            raise ConfigError(file_label, field, paths, "at least one file")
        files = [_usable(path, file_label, field) for path in paths]
        return cls([block for path in files for block in _checked(path, columns)])

    def __len__(self) -> int:
        """Number of problems, at least 1."""
        return self._starts[-1]

    @property
    def blocks(self) -> tuple[int, ...]:
        """Number of problems of each block, in order: the rows that are read and kept together."""
        return tuple(block.rows for block in self._stored)

    def problem(self, row: int) -> Problem:
        """The problem of a number from 0 to len - 1.

        Raises:
            IndexError: there is no such problem.
            ConfigError: its file has changed since it was checked, or is gone.
        """
        number, rest = self._find(row)
        block = self._load(number)
        return self._stored[number].reader.problem(block.cells(rest), block.place(rest))

    def place(self, row: int) -> tuple[str, str]:
        """Where a problem stands, for messages: ("train.parquet", "row 17"). Raises what `problem` does."""
        number, rest = self._find(row)
        return self._stored[number].path, self._load(number).place(rest)

    def _find(self, row: int) -> tuple[int, int]:
        """The block that has a row, and the row's number in it."""
        if not 0 <= row < len(self):
            raise IndexError(f"problem {row} of {len(self)}")
        number = bisect_right(self._starts, row) - 1
        return number, row - self._starts[number]

    def _read(self, number: int) -> Block:
        stored = self._stored[number]
        try:
            if _stamp(stored.path) != stored.stamp:
                raise ConfigError(stored.path, "", MISSING, "the file as it was when the run began; it has changed")
            return stored.file.load(stored.where)
        except OSError as error:
            raise _unreadable(stored.path, error) from None


def _usable(path: str, file_label: str, field: str) -> str:
    """The path with `~` expanded, if it may be that of a file of problems."""
    found = Path(os.path.expanduser(path))
    if found.is_dir():
        raise ConfigError(file_label, field, path, "a file, not a folder")
    if found.suffix not in FORMATS:
        raise ConfigError(file_label, field, path, "a .parquet or .jsonl file")
    if not found.is_file():
        raise ConfigError(file_label, field, path, "a readable file (it is not there)")
    return str(found)


def _checked(path: str, columns: ColumnsConfig) -> Iterator[StoredBlock]:
    try:
        with open(path, "rb"):  # before Arrow gives reasons of its own
            stamp = _stamp(path)
        file = FORMATS[Path(path).suffix](path, columns)
        reader = RowReader(path, file.keys, columns.answer_pattern)
        for block in file.blocks():
            for row in range(len(block)):
                reader.problem(block.cells(row), block.place(row))
            yield StoredBlock(path=path, stamp=stamp, file=file, reader=reader, where=block.where, rows=len(block))
    except OSError as error:
        raise _unreadable(path, error) from None


def _stamp(path: str) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


def _unreadable(path: str, error: OSError) -> ConfigError:
    return ConfigError(path, "", MISSING, f"a readable file ({error.strerror})")
