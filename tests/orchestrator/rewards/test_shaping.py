"""Shaping: the penalty grows where it should and nowhere else, and form earns its bonus."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.rewards.config import FormatConfig, OverlongConfig
from orchestrator.rewards.shaping import format_bonus, overlong_penalty

# DAPO's own numbers: 16384 tokens expected, 4096 more before the end.
DAPO = OverlongConfig(buffer=4096)


@pytest.mark.parametrize(
    ("num_tokens", "penalty"),
    [(0, 0.0), (16384, 0.0), (17408, -0.25), (18432, -0.5), (20480, -1.0), (30000, -1.0)],
)
def test_the_penalty_is_that_of_dapo(num_tokens: int, penalty: float) -> None:
    assert overlong_penalty(DAPO, num_tokens, 20480) == penalty


def test_a_buffer_longer_than_all_that_is_allowed_starts_below_nothing() -> None:
    assert overlong_penalty(OverlongConfig(buffer=200, penalty=2.0), 0, 100) == -1.0


@given(tokens=st.integers(0, 500), most=st.integers(1, 500), buffer=st.integers(1, 500), penalty=st.floats(0, 10))
def test_a_longer_response_never_loses_less_nor_more_than_the_penalty(
    tokens: int, most: int, buffer: int, penalty: float
) -> None:
    config = OverlongConfig(buffer=buffer, penalty=penalty)
    assert 0.0 >= overlong_penalty(config, tokens, most) >= overlong_penalty(config, tokens + 1, most) >= -penalty


def test_the_bonus_is_for_responses_in_which_the_pattern_is_found() -> None:
    config = FormatConfig(pattern=r"<think>.+</think>", bonus=0.2)
    assert format_bonus(config, "so <think>well</think> 5") == 0.2
    assert format_bonus(config, "so <think></think> 5") == 0.0
