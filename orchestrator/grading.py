"""From responses as token ids to what they earn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from actors.messages import Response
from orchestrator.problems.problem import Problem
from orchestrator.rewards.scores import RewardItem, Score

Answered = tuple[Problem, Sequence[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """What one response earned.

    Example:
        Grade(score=1.0, reward=0.8, answer="18", error=None)
    """

    score: float  # of the answer alone
    reward: float  # what is trained on: the score, shaped by length and format where the task says so
    answer: str | None = None  # as found in the response
    error: str | None = None  # why it could not be scored, and counts as 0


class Grader:
    """Decodes responses and has them scored.

    grader = Grader(tokenizer, pool.score)
    """

    def __init__(
        self,
        tokenizer: Any,
        score: Callable[[Sequence[RewardItem]], list[Score]],
        length_penalty: Callable[[int], float] = lambda _num_tokens: 0.0,
    ) -> None:
        """Define the grader.

        Args:
            tokenizer: of the model, from transformers.
            score: scores of items, in order.
            length_penalty: what a response's length in tokens adds to its reward.
        """
        self._tokenizer = tokenizer
        self._score = score
        self._length_penalty = length_penalty

    def grade(self, answered: Sequence[Answered]) -> list[tuple[Grade, ...]]:
        """Grades of all responses to all problems, in one go."""
        responses = [response for _, some in answered for response in some]
        texts = self.texts(responses)
        problems = [problem for problem, some in answered for _ in some]
        items = [
            RewardItem(response=text, answer=problem.answer, source=problem.source, extra=problem.extra)
            for text, problem in zip(texts, problems, strict=True)
        ]
        grades = iter(
            Grade(
                score=score.value,
                reward=score.value + score.bonus + self._length_penalty(len(response.token_ids)),
                answer=score.answer,
                error=score.error,
            )
            for response, score in zip(responses, self._score(items), strict=True)
        )
        return [tuple(next(grades) for _ in some) for _, some in answered]

    def texts(self, responses: Sequence[Response]) -> list[str]:
        """Responses as text, without special tokens."""
        rows = [response.token_ids.tolist() for response in responses]
        decoded: list[str] = self._tokenizer.batch_decode(rows, skip_special_tokens=True)
        return decoded
