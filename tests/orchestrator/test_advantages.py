"""Group-relative advantages against their formulas, and what must hold for any rewards."""

import doctest
import statistics
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import orchestrator.advantages
from orchestrator.advantages import AdvantageKind, group_advantages

KINDS: tuple[AdvantageKind, ...] = get_args(AdvantageKind)
CENTRED = tuple(kind for kind in KINDS if kind != "optimal_token_baseline")  # whose baseline is subtracted here
rewards = st.lists(st.floats(-100, 100), min_size=2, max_size=16)


def mean_of_others(values: list[float], i: int) -> float:
    return statistics.fmean(values[:i] + values[i + 1 :])


FORMULAS: dict[AdvantageKind, Callable[[list[float], int], float]] = {
    "grpo": lambda values, i: (values[i] - statistics.fmean(values)) / (statistics.stdev(values) + 1e-6),
    "dr_grpo": lambda values, i: values[i] - statistics.fmean(values),
    "rloo": lambda values, i: values[i] - mean_of_others(values, i),
    "optimal_token_baseline": lambda values, i: values[i],
}


def test_every_kind_has_a_formula_to_be_compared_with() -> None:
    assert set(KINDS) == set(FORMULAS)


@pytest.mark.parametrize("kind", KINDS)
@given(values=rewards)
def test_advantages_follow_the_formula(kind: AdvantageKind, values: list[float]) -> None:
    expected = [FORMULAS[kind](values, i) for i in range(len(values))]
    assert group_advantages(kind, values).tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("kind", CENTRED)
@given(values=rewards)
def test_advantages_add_up_to_zero_and_rank_like_the_rewards(kind: AdvantageKind, values: list[float]) -> None:
    advantages = group_advantages(kind, values)
    assert advantages.dtype == np.float64
    assert abs(advantages.sum()) <= 1e-6
    order = np.argsort(values, kind="stable")
    assert (np.diff(advantages[order]) >= 0).all()


@pytest.mark.parametrize("kind", CENTRED)
@given(value=st.floats(-100, 100), size=st.integers(2, 16))
def test_equal_rewards_have_next_to_no_advantage(kind: AdvantageKind, value: float, size: int) -> None:
    assert np.abs(group_advantages(kind, [value] * size)).max() <= 1e-6


@pytest.mark.parametrize("kind", CENTRED)
@given(values=rewards, shift=st.floats(-100, 100))
def test_a_bonus_for_all_changes_nothing(kind: AdvantageKind, values: list[float], shift: float) -> None:
    shifted = [value + shift for value in values]
    tolerance = 1e-6 if kind != "grpo" else 1e-2  # divided by a spread that may be tiny
    assert group_advantages(kind, shifted).tolist() == pytest.approx(
        group_advantages(kind, values).tolist(), abs=tolerance
    )


@given(values=rewards)
def test_for_the_optimal_token_baseline_the_learners_get_the_rewards_untouched(values: list[float]) -> None:
    advantages = group_advantages("optimal_token_baseline", values)
    assert advantages.dtype == np.float64
    assert advantages.tolist() == values


def test_grpo_is_the_same_at_any_scale_of_rewards() -> None:
    small, large = group_advantages("grpo", [0.0, 1.0, 1.0]), group_advantages("grpo", [0.0, 100.0, 100.0])
    assert small.tolist() == pytest.approx(large.tolist(), rel=1e-5)


def test_the_example_in_the_docstring_runs() -> None:
    results = doctest.testmod(orchestrator.advantages)
    assert results.attempted and not results.failed
