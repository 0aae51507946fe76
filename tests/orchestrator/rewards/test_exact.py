"""The exact reward: the whole response or nothing."""

import pytest

from orchestrator.rewards.config import ExactReward
from orchestrator.rewards.exact import exact_scorer
from orchestrator.rewards.scores import RewardItem, Score


@pytest.mark.parametrize(
    ("response", "answer", "value"),
    [
        ("Paris", "Paris", 1.0),
        (" Paris\n", "\tParis ", 1.0),
        ("paris", "Paris", 0.0),
        ("Paris.", "Paris", 0.0),
        ("It is Paris", "Paris", 0.0),
        ("", "", 0.0),
    ],
)
def test_the_response_is_the_answer_but_for_white_space_around_it(response: str, answer: str, value: float) -> None:
    score = exact_scorer(ExactReward())(RewardItem(response=response, answer=answer))
    assert score == Score(value=value, answer=response.strip() or None)


@pytest.mark.parametrize(("response", "answer"), [("PARIS", "paris"), ("straße", "STRASSE")])
def test_case_is_ignored_where_that_is_asked_for(response: str, answer: str) -> None:
    item = RewardItem(response=response, answer=answer)
    assert exact_scorer(ExactReward(ignore_case=True))(item).value == 1.0
    assert exact_scorer(ExactReward())(item).value == 0.0
