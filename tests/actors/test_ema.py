"""The exponential moving average against its definition."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

import actors.ema
from actors.ema import Ema

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


def test_the_example_in_the_docstring_is_true() -> None:
    assert doctest.testmod(actors.ema) == (0, 2)


@given(values, st.floats(0.01, 1.0))
def test_it_is_the_weighted_sum_of_all_values_with_the_first_as_its_start(series: list[float], weight: float) -> None:
    ema = Ema(weight)
    last = [ema.update(value) for value in series][-1]
    n = len(series)
    weights = [(1 - weight) ** (n - 1)] + [weight * (1 - weight) ** (n - 1 - i) for i in range(1, n)]
    expected = sum(w * value for w, value in zip(weights, series, strict=True))
    assert last == ema.value == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(values, values)
def test_one_that_takes_over_the_value_goes_on_like_the_other(before: list[float], after: list[float]) -> None:
    ema, successor = Ema(0.2), Ema(0.2)
    for value in before:
        ema.update(value)
    successor.value = ema.value
    assert [successor.update(value) for value in after] == [ema.update(value) for value in after]


def test_a_fresh_one_has_no_value() -> None:
    assert Ema(0.5).value is None
