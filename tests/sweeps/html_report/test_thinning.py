"""Thinned lines: few enough points, all of them recorded, and no peak lost."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sweeps.html_report.thinning import Line

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300)


def line(numbers: list[float]) -> Line:
    found = np.array(numbers)
    return Line(steps=3 * np.arange(len(found)), values=found, low=found - 1, high=found + 2)


@given(values, st.integers(2, 40))
def test_all_points_are_those_of_the_line_and_its_extremes_are_among_them(numbers: list[float], half: int) -> None:
    whole = line(numbers)
    thin = whole.thinned(2 * half)
    assert len(thin.steps) == len(thin.values) == len(thin.low) == len(thin.high) <= max(2 * half, 1)
    assert np.all(np.diff(thin.steps) > 0)
    assert np.array_equal(thin.values, whole.values[thin.steps // 3])
    assert (thin.values.min(), thin.values.max()) == (whole.values.min(), whole.values.max())
    assert (thin.low.min(), thin.high.max()) == (whole.low.min(), whole.high.max())
    assert np.all(thin.low <= thin.values) and np.all(thin.values <= thin.high)


def test_a_short_line_stays_as_it_is() -> None:
    whole = line([3.0, 1.0, 2.0])
    assert whole.thinned(4) is whole


def test_the_band_of_a_stretch_reaches_over_all_its_points() -> None:
    steps, middle = np.arange(8), np.array([0.0, 1, 2, 3, 0, 1, 2, 3])
    high = middle + np.array([0.0, 9, 0, 0, 0, 0, 0, 0])
    thin = Line(steps=steps, values=middle, low=middle, high=high).thinned(4)
    assert thin.steps.tolist() == [0, 3, 4, 7]
    assert thin.high.tolist() == [10.0, 10.0, 3.0, 3.0]


def test_steps_without_a_value_have_no_point() -> None:
    assert Line.bare(np.arange(3), np.array([1.0, np.nan, 2.0])).steps.tolist() == [0, 2]
