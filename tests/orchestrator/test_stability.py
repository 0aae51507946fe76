"""The verdict on a run: each condition at its step by hand, what changes nothing, and state that can be put away."""

import doctest
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator import stability
from orchestrator.stability import StabilityConfig, StabilityMonitor, Verdict, judge

GRADIENT, REWARD, LENGTH, MISMATCH = (
    "gradient/nonfinite",
    "reward/mean",
    "response/length_mean",
    "mismatch/log_ppl_abs_diff",
)
DEFAULTS = StabilityConfig()
# Without smoothing and with little patience the steps can be counted on the fingers.
SHARP = StabilityConfig(smoothing=1.0, patience=2, max_mismatch=0.5)


def rows(key: str, values: Sequence[float | None], first_step: int = 0) -> list[dict[str, Any]]:
    """One row a step; None is a row without the key."""
    return [
        {"step": first_step + i} if value is None else {"step": first_step + i, key: value}
        for i, value in enumerate(values)
    ]


def verdict_step(key: str, values: Sequence[float | None], config: StabilityConfig) -> int | None:
    verdict = judge(rows(key, values), config)
    return None if verdict is None else verdict.step


def test_the_examples_in_the_docstrings_are_right() -> None:
    result = doctest.testmod(stability)
    assert result.attempted > 0
    assert result.failed == 0


# Each condition alone, with the default settings.


def test_ten_nonfinite_gradients_in_a_row_are_a_collapse() -> None:
    verdict = judge(rows(GRADIENT, [0.0] * 3 + [7.0] * 20), DEFAULTS)
    assert verdict is not None
    assert (verdict.step, verdict.reason) == (12, "nonfinite_gradient")  # steps 3 to 12
    assert verdict.detail == "the gradient had 7 non-finite elements, 10 steps in a row"


def test_a_reward_average_below_half_its_best_is_a_collapse() -> None:
    # 0.6 up to step 9, then 0: the average after k zeros is 0.6 * 0.9^k, below 0.3 from k = 7, which is step 16.
    verdict = judge(rows(REWARD, [0.6] * 10 + [0.0] * 30), DEFAULTS)
    assert verdict is not None
    assert (verdict.step, verdict.reason) == (25, "reward")
    # At step 25, k = 16: 0.6 * 0.9^16 = 0.1112.
    assert verdict.detail == (
        "the moving average of the reward, 0.1112, was below 0.5 times its best, 0.6, 10 steps in a row"
    )


def test_a_length_average_below_a_tenth_of_its_start_is_a_collapse() -> None:
    # The average after k ones is 1 + 99 * 0.9^k, below 10 from k = 23 (9.77), which is step 42.
    verdict = judge(rows(LENGTH, [100.0] * 20 + [1.0] * 60), DEFAULTS)
    assert verdict is not None
    assert (verdict.step, verdict.reason) == (51, "length")
    # At step 51, k = 32: 1 + 99 * 0.9^32 = 4.399.
    assert verdict.detail == (
        "the moving average of the response length, 4.399 tokens, was below 0.1 times the 100 of the start,"
        " 10 steps in a row"
    )


def test_a_mismatch_average_above_its_limit_is_a_collapse() -> None:
    # The average after k ones is 1 - 0.9^k, above 0.5 from k = 7 (0.522), which is step 7.
    verdict = judge(rows(MISMATCH, [0.0] + [1.0] * 30), StabilityConfig(max_mismatch=0.5))
    assert verdict is not None
    assert (verdict.step, verdict.reason) == (16, "mismatch")
    # At step 16, k = 16: 1 - 0.9^16 = 0.8147.
    assert verdict.detail == "the moving average of the mismatch, 0.8147, was above 0.5, 10 steps in a row"


def test_without_a_limit_no_mismatch_is_a_collapse() -> None:
    assert judge(rows(MISMATCH, [0.0] + [1e6] * 50), DEFAULTS) is None


# The edges of each condition.


@pytest.mark.parametrize(("nonfinite", "step"), [([1, 0, 1, 1], 3), ([1, 0, 1, 0], None), ([1, None, 1], 2)])
def test_a_finite_gradient_starts_the_count_anew_and_a_missing_count_does_not(
    nonfinite: list[float | None], step: int | None
) -> None:
    assert verdict_step(GRADIENT, nonfinite, SHARP) == step


@pytest.mark.parametrize(
    ("rewards", "step"),
    [
        ([0.09, 0.0, 0.0, 0.0], None),  # its best never reached 0.1
        ([0.1, 0.04, 0.04], 2),
        ([0.8, 0.4, 0.4, 0.4], None),  # half of the best is not below half of it
        ([0.8, 0.3, 0.5, 0.3, 0.3], 4),  # the recovery at step 2 starts the count anew
        ([0.8, 0.3, 0.9, 0.44, 0.44], 4),  # a new best moves the bar
        ([0.8, 0.3, None, math.nan, math.inf, 0.3], 5),  # what is not usable changes nothing
        ([0.0, -1.0, -1.0], None),
    ],
)
def test_the_reward_is_held_against_its_own_best(rewards: list[float | None], step: int | None) -> None:
    assert verdict_step(REWARD, rewards, SHARP) == step


@pytest.mark.parametrize(
    ("lengths", "step"),
    [
        ([100.0] * 19 + [1.0] * 3, 20),  # the 20th value, at step 19, is the first that can be too short
        ([100.0] * 9 + [1.0] * 11 + [0.5] * 3, None),  # the median of the first 20 is 1
        ([1000.0] * 10 + [100.0] * 10 + [54.0] * 3, 21),  # it is 550, not the mean, and not the first value
        ([1000.0] * 10 + [100.0] * 10 + [55.0] * 3, None),  # a tenth is not below a tenth
        ([None] * 5 + [100.0] * 20 + [1.0] * 2, 26),  # values count, not steps
        ([100.0] * 20 + [1.0, 50.0, 1.0, 1.0], 23),
    ],
)
def test_the_length_is_held_against_the_median_of_its_first_twenty(
    lengths: list[float | None], step: int | None
) -> None:
    assert verdict_step(LENGTH, lengths, SHARP) == step


@pytest.mark.parametrize(("mismatch", "step"), [([0.5, 0.5, 0.5], None), ([0.6, 0.5, 0.6, 0.6], 3), ([0.6] * 2, 1)])
def test_the_mismatch_has_to_be_above_its_limit(mismatch: list[float], step: int | None) -> None:
    assert verdict_step(MISMATCH, mismatch, SHARP) == step


def test_the_counters_are_not_added_up() -> None:
    steps = [{"step": 0, GRADIENT: 1.0}, {"step": 1, GRADIENT: 0.0, MISMATCH: 1.0}, {"step": 2, MISMATCH: 0.0}]
    assert judge(steps, SHARP) is None


def test_of_two_reasons_at_the_same_step_the_first_in_the_list_is_given() -> None:
    steps = [{"step": step, MISMATCH: 1.0, GRADIENT: 1.0} for step in range(3)]
    verdict = judge(steps, SHARP)
    assert verdict is not None
    assert (verdict.step, verdict.reason) == (1, "nonfinite_gradient")


def test_gaps_between_steps_do_not_matter() -> None:
    verdict = judge([{"step": step, GRADIENT: 1.0} for step in (7, 90)], SHARP)
    assert verdict is not None
    assert verdict.step == 90


# The monitor.


def test_the_verdict_comes_once_and_stays_readable() -> None:
    monitor = StabilityMonitor(SHARP)
    answers = [monitor.observe(row["step"], row) for row in rows(GRADIENT, [1.0] * 5)]
    assert [answer is not None for answer in answers] == [False, True, False, False, False]
    assert monitor.verdict == answers[1]


def test_a_run_without_any_of_the_keys_is_never_judged_collapsed() -> None:
    assert judge(rows("policy/entropy", [1.0] * 50), DEFAULTS) is None


VALUES = st.none() | st.floats(allow_nan=True, allow_infinity=True, min_value=None) | st.sampled_from([0.0, 0.5, 1.0])
METRICS = st.fixed_dictionaries({}, optional={key: VALUES for key in (GRADIENT, REWARD, LENGTH, MISMATCH)})


@given(st.lists(METRICS, max_size=40), st.data())
def test_saving_and_loading_at_any_step_changes_nothing(metrics: list[dict[str, float | None]], data: Any) -> None:
    config = StabilityConfig(patience=3, max_mismatch=0.6, smoothing=0.5)
    cut = data.draw(st.integers(0, len(metrics)))
    through, before, after = (StabilityMonitor(config) for _ in range(3))
    expected = [through.observe(step, row) for step, row in enumerate(metrics)]
    answers = [before.observe(step, row) for step, row in enumerate(metrics[:cut])]
    text = json.dumps(before.state_dict(), allow_nan=False)
    before.observe(cut, {GRADIENT: 1.0, REWARD: 5.0, LENGTH: 5.0, MISMATCH: 5.0})  # what was saved is not touched
    after.load_state_dict(json.loads(text))
    answers += [after.observe(step, row) for step, row in enumerate(metrics) if step >= cut]
    assert answers == expected
    assert after.verdict == through.verdict
    assert after.state_dict() == through.state_dict()


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5))
def test_the_verdict_falls_with_the_first_streak_of_patience_steps(nonfinite: list[bool], patience: int) -> None:
    streaks = [i for i in range(len(nonfinite)) if i + 1 >= patience and all(nonfinite[i + 1 - patience : i + 1])]
    config = StabilityConfig(patience=patience)
    assert verdict_step(GRADIENT, [float(flag) for flag in nonfinite], config) == (streaks[0] if streaks else None)


def test_a_state_of_other_conditions_is_refused() -> None:
    state = StabilityMonitor(DEFAULTS).state_dict()
    with pytest.raises(KeyError, match="mismatch"):
        StabilityMonitor(SHARP).load_state_dict(state)


def test_a_verdict_survives_the_checkpoint() -> None:
    monitor, later = StabilityMonitor(SHARP), StabilityMonitor(SHARP)
    for row in rows(GRADIENT, [2.0, 2.0]):
        monitor.observe(row["step"], row)
    later.load_state_dict(monitor.state_dict())
    assert later.verdict == Verdict(
        step=1, reason="nonfinite_gradient", detail="the gradient had 2 non-finite elements, 2 steps in a row"
    )


# The settings.


def test_the_defaults_are_those_of_the_method() -> None:
    assert StabilityConfig().model_dump() == {
        "on_collapse": "record",
        "patience": 10,
        "smoothing": 0.1,
        "fraction": 0.5,
        "min_reward": 0.1,
        "short_ratio": 0.1,
        "max_mismatch": None,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_collapse": "explode"},
        {"patience": 0},
        {"patience": 2.5},
        {"smoothing": 0.0},
        {"smoothing": 1.1},
        {"fraction": -0.1},
        {"fraction": 1.5},
        {"min_reward": -0.1},
        {"min_reward": math.nan},
        {"short_ratio": 2.0},
        {"max_mismatch": 0.0},
        {"max_mismatch": math.inf},
        {"unknown": 1},
    ],
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        StabilityConfig(**wrong)
