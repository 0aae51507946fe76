"""An endless stream of a file's problems, every epoch in another order."""

import random
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Protocol

from orchestrator.problems.problem import Problem

CACHED_ORDERS = 4  # of a block's rows; a batch may reach from one block into the next


class Problems(Protocol):
    """Problems that lie in blocks, as those of files do."""

    @property
    def blocks(self) -> Sequence[int]:
        """Number of problems of each block."""

    def problem(self, row: int) -> Problem:
        """The problem of a row."""


class ShuffledStream:
    """Problems 0, 1, 2, ... without end: every row once an epoch, in an order that seed and epoch decide.

    The blocks are shuffled, and the rows within each block; rows of different blocks do not mix, so that one block at a
    time is read. In a file of one block that is any order at all; in a larger one, rows that are neighbours by topic
    stay within a few ten thousand problems of each other.

    The order is the same in every process and on every machine: Python promises that `random()` of a generator with
    a given seed never changes, and nothing else is used of it. So the number of a problem is all that a checkpoint
    needs.

    stream = ShuffledStream(ProblemFiles.open("train.parquet", config, "gsm8k.yaml", "task.train"), seed=0)
    stream.problem(17) == stream.problem(17)
    """

    def __init__(self, problems: Problems, seed: int) -> None:
        """Args: problems: those of an epoch, at least one; seed: of the orders."""
        self._problems = problems
        self._seed = seed
        self._sizes = problems.blocks
        self._starts = list(accumulate(self._sizes, initial=0))
        self._blocks_of = lru_cache(2)(self._shuffled_blocks)
        self._rows_of = lru_cache(CACHED_ORDERS)(self._shuffled_rows)

    def problem(self, number: int) -> Problem:
        """Problem `number` (from 0), the same one at every call."""
        return self._problems.problem(self.row(number))

    def row(self, number: int) -> int:
        """Its row among the problems of an epoch."""
        epoch, position = divmod(number, self._starts[-1])
        blocks, ends = self._blocks_of(epoch)
        turn = bisect_right(ends, position)
        block = blocks[turn]
        rest = position - (ends[turn] - self._sizes[block])
        return self._starts[block] + self._rows_of(epoch, block)[rest]

    def _shuffled_blocks(self, epoch: int) -> tuple[list[int], list[int]]:
        """The blocks in the order of an epoch, and how many rows have been seen at the end of each."""
        blocks = _permutation(len(self._sizes), f"blocks/{self._seed}/{epoch}")
        return blocks, list(accumulate(self._sizes[block] for block in blocks))

    def _shuffled_rows(self, epoch: int, block: int) -> list[int]:
        return _permutation(self._sizes[block], f"rows/{self._seed}/{epoch}/{block}")


def _permutation(size: int, name: str) -> list[int]:
    """The numbers below `size` in an order that `name` alone decides."""
    rng = random.Random(name)  # a string seed is hashed with SHA-512: stable across processes
    return sorted(range(size), key=lambda _: rng.random())
