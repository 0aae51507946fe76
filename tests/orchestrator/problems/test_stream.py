"""The shuffled stream: every row once an epoch, another order in each, and the same ones everywhere and for ever."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.problems.problem import Problem
from orchestrator.problems.stream import ShuffledStream


@dataclass
class NumberedProblems:
    """Problems whose answers are their rows."""

    blocks: Sequence[int]

    def problem(self, row: int) -> Problem:
        assert 0 <= row < sum(self.blocks)
        return Problem(prompt="row", answer=str(row))


def rows(blocks: Sequence[int], seed: int, epoch: int = 0) -> list[int]:
    stream, size = ShuffledStream(NumberedProblems(blocks), seed), sum(blocks)
    return [stream.row(number) for number in range(epoch * size, (epoch + 1) * size)]


BLOCKS = st.lists(st.integers(1, 9), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**31 - 1)
EPOCHS = st.integers(0, 1000)


@given(blocks=BLOCKS, seed=SEEDS, epoch=EPOCHS)
def test_an_epoch_has_every_row_exactly_once(blocks: list[int], seed: int, epoch: int) -> None:
    assert sorted(rows(blocks, seed, epoch)) == list(range(sum(blocks)))


@given(blocks=BLOCKS, seed=SEEDS, numbers=st.lists(st.integers(0, 500), max_size=20))
def test_the_number_alone_says_which_problem_it_is(blocks: list[int], seed: int, numbers: list[int]) -> None:
    stream = ShuffledStream(NumberedProblems(blocks), seed)
    at_random = [stream.row(number) for number in numbers]
    assert at_random == [ShuffledStream(NumberedProblems(blocks), seed).row(number) for number in numbers]
    assert [stream.problem(number).answer for number in numbers] == [str(row) for row in at_random]


@given(blocks=BLOCKS, seed=SEEDS)
def test_the_rows_of_a_block_come_one_after_the_other(blocks: list[int], seed: int) -> None:
    of_row = [block for block, size in enumerate(blocks) for _ in range(size)]
    order = [of_row[row] for row in rows(blocks, seed)]
    changes = sum(one != two for one, two in pairwise(order))
    assert changes == len(blocks) - 1


def test_the_order_of_blocks_and_of_rows_changes_with_the_seed_and_with_the_epoch() -> None:
    blocks = [30, 30, 30]
    orders = [tuple(rows(blocks, seed, epoch)) for seed in range(10) for epoch in range(10)]
    assert len(set(orders)) == 100
    assert len({order[0] // 30 for order in orders}) == 3
    within = [tuple(row for row in order if row < 30) for order in orders]
    assert len(set(within)) == 100


def test_every_row_of_a_block_comes_first_about_as_often() -> None:
    stream = ShuffledStream(NumberedProblems([4]), seed=0)
    firsts = [stream.row(4 * epoch) for epoch in range(4000)]
    assert all(900 < firsts.count(row) < 1100 for row in range(4))


def test_the_order_is_this_one_for_ever() -> None:
    assert rows([5, 3], seed=7) + rows([5, 3], seed=7, epoch=1) == [7, 5, 6, 0, 4, 2, 3, 1, 6, 5, 7, 3, 1, 4, 0, 2]


def test_another_process_with_another_hash_seed_has_the_same_order() -> None:
    code = "from test_stream import rows; print(rows([40, 2, 9], seed=3, epoch=11))"
    here, environment = Path(__file__).parent, {"PYTHONHASHSEED": "4", "PYTHONPATH": f"{Path(__file__).parents[3]}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here, env=environment
    )
    assert done.stdout.strip() == str(rows([40, 2, 9], seed=3, epoch=11))
