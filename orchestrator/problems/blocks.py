"""Blocks: neighbouring rows of a file that are read and kept together."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from orchestrator.problems.keys import Keys

# How large a block gets at most, in a file's own (for Parquet, uncompressed) bytes and in rows. The order of a shuffled
# stream follows from both: with other numbers, a run that is taken up again would see other problems.
BLOCK_BYTES = 32 * 2**20
BLOCK_ROWS = 32_768


class Cells(NamedTuple):
    """What a row holds, unchecked; MISSING where it has no such key."""

    prompt: Any
    answer: Any
    source: Any
    extra: Any


class Block(Protocol):
    """The rows of a block, counted from 0."""

    @property
    def where(self) -> tuple[int, int]:
        """How its file finds it again."""

    def __len__(self) -> int:
        """Number of rows, at least 1."""

    def place(self, row: int) -> str:
        """What a message calls a row: "line 7"."""

    def cells(self, row: int) -> Cells:
        """What a row holds; ConfigError when that cannot be decoded."""


class BlockFile(Protocol):
    """A file that is read block by block.

    sizes = {block.where: len(block) for block in file.blocks()}
    file.load(where).cells(0)
    """

    @property
    def keys(self) -> Keys:
        """What its rows have where."""

    def blocks(self) -> Iterator[Block]:
        """All rows of the file, in one pass; ConfigError when it is damaged."""

    def load(self, where: tuple[int, int]) -> Block:
        """One of these blocks again."""
