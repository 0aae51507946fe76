"""Grades of decoded responses: one call for all, scores and rewards apart, each to its own problem."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from actors.messages import Response
from orchestrator.grading import Grade, Grader
from orchestrator.problems.problem import Problem
from orchestrator.rewards.scores import RewardItem, Score

END = 0  # the end token


class FakeTokenizer:
    """One token a character; the end token is special."""

    def batch_decode(self, rows: list[list[int]], *, skip_special_tokens: bool) -> list[str]:
        assert skip_special_tokens
        assert all(type(token) is int for row in rows for token in row)
        return ["".join(chr(token) for token in row if token != END) for row in rows]


class Scores:
    """1 for the answer and 0 for others; remembers each call."""

    def __init__(self) -> None:
        self.calls: list[Sequence[RewardItem]] = []

    def __call__(self, items: Sequence[RewardItem]) -> list[Score]:
        self.calls.append(items)
        return [Score.of(item.response == item.answer, item.response) for item in items]


def response(text: str) -> Response:
    ids = np.array([*map(ord, text), END], np.int32)
    return Response(token_ids=ids, logprobs=np.zeros(len(ids), np.float32), finished=True, weight_version=0)


def test_all_responses_to_all_problems_are_scored_in_one_call_each_by_its_own_problem() -> None:
    scores = Scores()
    first = Problem(prompt="6*3", answer="18", source="gsm8k", extra={"level": 1})
    second = Problem(prompt="1+1", answer="2")
    grades = Grader(FakeTokenizer(), scores).grade(
        [(first, [response("18"), response("2")]), (second, [response("2")]), (first, [])]
    )
    assert [[grade.score for grade in some] for some in grades] == [[1.0, 0.0], [1.0], []]
    assert [[grade.answer for grade in some] for some in grades] == [["18", "2"], ["2"], []]
    (items,) = scores.calls
    assert items[0] == RewardItem(response="18", answer="18", source="gsm8k", extra={"level": 1})


def test_shaping_adds_to_the_reward_and_leaves_the_score() -> None:
    def with_bonus(items: Sequence[RewardItem]) -> list[Score]:
        return [replace(score, bonus=0.25) for score in Scores()(items)]

    shaped = Grader(FakeTokenizer(), with_bonus, length_penalty=lambda num_tokens: -0.5 * (num_tokens > 2))
    ((right, wrong),) = shaped.grade([(Problem(prompt="", answer="18"), [response("18"), response("7")])])
    assert (right.score, right.reward) == (1.0, 1.0 + 0.25 - 0.5)
    assert (wrong.score, wrong.reward) == (0.0, 0.25)


def test_an_error_comes_with_the_grade() -> None:
    def fails(items: Sequence[RewardItem]) -> list[Score]:
        return [Score.failed("took longer than 10 s") for _ in items]

    ((grade,),) = Grader(FakeTokenizer(), fails).grade([(Problem(prompt="", answer=""), [response("18")])])
    assert grade == Grade(score=0.0, reward=0.0, error="took longer than 10 s")
