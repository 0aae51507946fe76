"""Pairs of measurements: who goes first, medians, ratios."""

import doctest

import pytest

import orchestrator.bench.pairs
from orchestrator.bench.pairs import Pairs, Spread, all_interleaved, interleaved, timed


def test_the_examples_in_the_docstrings_are_true() -> None:
    assert doctest.testmod(orchestrator.bench.pairs).failed == 0


def test_the_sides_take_turns_in_going_first_and_warm_ups_do_not_count() -> None:
    journal: list[str] = []

    def side(name: str, seconds: float) -> float:
        journal.append(name)
        return seconds

    pairs = interleaved(lambda: side("ours", 3.0), lambda: side("bare", 2.0), pairs=2, warm_ups=1)
    assert journal == ["ours", "bare", "bare", "ours", "ours", "bare"]
    assert pairs == Pairs(ours=(3.0, 3.0), bare=(2.0, 2.0))
    assert pairs.ratio == 1.5


def test_one_disturbed_pair_moves_neither_the_ratio_nor_the_quartiles() -> None:
    pairs = Pairs(ours=(2.0, 2.0, 90.0, 2.0, 2.0), bare=(1.0, 1.0, 1.0, 1.0, 70.0))
    assert pairs.ratio == 2.0
    assert pairs.ratios == Spread(median=2.0, lower=2.0, upper=2.0)


def test_the_ratio_is_that_of_pairs_whatever_the_machine_does_from_one_to_the_next() -> None:
    assert Pairs(ours=(2.0, 20.0, 40.0), bare=(1.0, 10.0, 20.0)).ratio == 2.0
    assert Pairs(ours=(2.0, 30.0, 8.0), bare=(1.0, 10.0, 4.0)).ratio == 2.0


def test_what_several_things_are_compared_with_is_timed_once_for_all() -> None:
    journal: list[str] = []

    def side(name: str, seconds: float) -> float:
        journal.append(name)
        return seconds

    both = [lambda: side("one", 3.0), lambda: side("two", 4.0)]
    assert all_interleaved(both, lambda: side("bare", 2.0), pairs=1) == [
        Pairs(ours=(3.0,), bare=(2.0,)),
        Pairs(ours=(4.0,), bare=(2.0,)),
    ]
    assert journal == ["one", "two", "bare", "bare", "two", "one"]


def test_a_single_measurement_is_its_own_spread() -> None:
    assert Spread.of([4.0]) == Spread(median=4.0, lower=4.0, upper=4.0)


def test_work_is_timed_in_seconds() -> None:
    done: list[int] = []
    assert 0 <= timed(lambda: done.append(1))() < 60
    assert done == [1]


def test_bare_parts_that_take_no_time_at_all_are_a_mistake() -> None:
    with pytest.raises(ZeroDivisionError):
        _ = Pairs(ours=(1.0,), bare=(0.0,)).ratio
