"""The regex reward: the last match counts."""

import pytest

from orchestrator.rewards.config import RegexReward
from orchestrator.rewards.regex import regex_scorer
from orchestrator.rewards.scores import RewardItem, Score


@pytest.mark.parametrize(
    ("pattern", "response", "value", "answer"),
    [
        (r"answer: (\d+)", "answer: 5, no, answer: 7", 1.0, "7"),
        (r"answer: (\d+)", "answer: 7, no, answer: 5", 0.0, "5"),
        (r"\d+", "5 and 7", 1.0, "7"),
        (r"(\d+) of (\d+)", "7 of 9", 1.0, "7"),
        (r"<a>(.*?)</a>", "<a> 7 </a>", 1.0, "7"),
        (r"answer: (\d+)?", "answer: ", 0.0, None),
        (r"\d+", "seven", 0.0, None),
        (r"x*", "7", 0.0, None),
    ],
)
def test_group_1_of_the_last_match_is_the_answer(pattern: str, response: str, value: float, answer: str | None) -> None:
    score = regex_scorer(RegexReward(pattern=pattern))(RewardItem(response=response, answer=" 7"))
    assert score == Score(value=value, answer=answer)
