"""The arithmetic reward: exact, unforgiving, and safe on anything a model can write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.rewards import ANSWER_MARK, arithmetic_reward
from orchestrator.rewards.arithmetic import score_arithmetic
from orchestrator.rewards.scores import RewardItem, Score


@pytest.mark.parametrize("response", ["#132", "7+5+0=12;4+8+1=13;#132", "#999#132", "chatter #132"])
def test_an_exact_final_answer_earns_one(response: str) -> None:
    assert arithmetic_reward(response, "132") == 1.0


@pytest.mark.parametrize(
    "response",
    ["", "#", "132", "#13", "#1320", "#0132", "#132 ", "# 132", "#132#", "#132#999", "#132\n", "132#", "#+132", "#١٣٢"],
)
def test_anything_else_earns_nothing(response: str) -> None:
    assert arithmetic_reward(response, "132") == 0.0


@given(response=st.text(st.characters(), max_size=300), answer=st.text("0123456789", min_size=1, max_size=8))
def test_any_text_gets_zero_or_one_and_ends_with_the_answer_when_it_gets_one(response: str, answer: str) -> None:
    reward = arithmetic_reward(response, answer)
    assert reward in {0.0, 1.0}
    assert (reward == 1.0) == response.endswith(ANSWER_MARK + answer)


def test_a_very_long_response_is_scored_by_its_end() -> None:
    noise = "#7+5+0=12;" * 1_000_000
    assert arithmetic_reward(noise + "#132", "132") == 1.0
    assert arithmetic_reward("#132" + noise, "132") == 0.0


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("7+5+0=12;#132", Score(value=1.0, answer="132")),
        ("#132#13", Score(value=0.0, answer="13")),
        ("132", Score(value=0.0)),
        ("132#", Score(value=0.0)),
    ],
)
def test_the_score_names_the_final_answer(response: str, score: Score) -> None:
    assert score_arithmetic(RewardItem(response=response, answer="132")) == score
