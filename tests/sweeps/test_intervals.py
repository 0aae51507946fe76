"""Intervals over seeds against direct computation: all resamples of a few seeds can be counted out."""

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps import intervals
from sweeps.intervals import Interval, mean_interval, paired_difference

VALUES = st.dictionaries(st.integers(0, 20), st.floats(-100, 100), min_size=1, max_size=8)


def all_resample_means(values: list[float]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """The means of all n^n equally likely resamples."""
    return np.array([sum(drawn) / len(values) for drawn in itertools.product(values, repeat=len(values))])


def test_the_examples_in_the_docstrings_are_right() -> None:
    result = doctest.testmod(intervals)
    assert (result.attempted > 0, result.failed) == (True, 0)


def test_one_seed_has_its_value_and_no_spread() -> None:
    assert mean_interval({4: 0.7}) == Interval(mean=0.7, low=0.7, high=0.7, num_seeds=1)


@pytest.mark.parametrize("values", [[1.0, 3.0], [1.0, 2.0, 9.0]])
def test_with_two_or_three_seeds_the_interval_goes_from_the_smallest_to_the_largest(values: list[float]) -> None:
    interval = mean_interval(dict(enumerate(values)))
    assert interval == Interval(
        mean=sum(values) / len(values), low=min(values), high=max(values), num_seeds=len(values)
    )


@pytest.mark.parametrize("values", [[0.0, 1.0, 2.0, 4.0, 8.0], [0.3, 0.31, 0.5, 0.52, 0.9, 0.1]])
def test_outside_the_interval_lie_five_in_a_hundred_of_all_resamples(values: list[float]) -> None:
    interval = mean_interval(dict(enumerate(values)))
    assert interval is not None
    assert interval.mean == pytest.approx(np.mean(values))
    means = all_resample_means(values)
    # Quantiles of 10,000 of them: 2.5% with a standard error of 0.16%.
    assert np.mean(means < interval.low - 1e-9) < 0.03
    assert np.mean(means <= interval.low + 1e-9) > 0.02
    assert np.mean(means > interval.high + 1e-9) < 0.03
    assert np.mean(means >= interval.high - 1e-9) > 0.02


def test_many_seeds_give_about_the_interval_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, size=400)
    interval = mean_interval(dict(enumerate(values.tolist())))
    assert interval is not None
    half = 1.96 * float(values.std()) / math.sqrt(400)
    assert interval.low == pytest.approx(interval.mean - half, rel=0.01)
    assert interval.high == pytest.approx(interval.mean + half, rel=0.01)


def test_seeds_without_a_value_are_left_out_and_not_counted() -> None:
    assert mean_interval({0: 1.0, 1: math.nan, 2: 3.0}) == mean_interval({0: 1.0, 2: 3.0})
    assert mean_interval({0: math.nan}) is None
    assert mean_interval({}) is None


@given(VALUES)
def test_the_same_runs_give_the_same_interval_in_whatever_order_they_come(by_seed: dict[int, float]) -> None:
    assert mean_interval(by_seed) == mean_interval(dict(reversed(by_seed.items())))


@given(VALUES)
def test_an_interval_lies_between_the_extremes_and_holds_the_mean(by_seed: dict[int, float]) -> None:
    interval = mean_interval(by_seed)
    assert interval is not None
    assert min(by_seed.values()) - 1e-9 <= interval.low <= interval.mean + 1e-9
    assert interval.mean - 1e-9 <= interval.high <= max(by_seed.values()) + 1e-9
    assert interval.num_seeds == len(by_seed)


def test_differences_are_taken_seed_by_seed_over_those_that_both_have() -> None:
    arm, reference = {0: 1.1, 1: 5.1, 2: 9.3, 3: 50.0}, {0: 1.0, 1: 5.0, 2: 9.0, 9: -50.0}
    difference = paired_difference(arm, reference)
    assert difference is not None
    # 0.1, 0.1 and 0.3: what the seeds have in common, 1 to 9, has cancelled.
    assert difference.mean == pytest.approx(0.5 / 3)
    assert (difference.low, difference.high) == (pytest.approx(0.1), pytest.approx(0.3))
    assert difference.num_seeds == 3


def test_arms_without_a_common_seed_have_no_difference() -> None:
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    assert paired_difference({0: 1.0}, {0: math.nan}) is None
