"""A task's problems as the workers see them: prompts as token ids, responses as grades."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from actors.messages import IntArray, Response
from orchestrator.config_errors import ConfigError
from orchestrator.grading import Grade, Grader
from orchestrator.problems.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A problem's prompt, ready to be sampled from.

    Example:
        Prompt(number=17, token_ids=array([5, 14, 7], dtype=int32))
    """

    number: int  # in its set
    token_ids: IntArray  # [P]


class ProblemSet:
    """A numbered set of problems behind a tokenizer; training goes through one without end.

    training = ProblemSet(stream.problem, len(file), template.encode, grader, max_prompt_tokens=448)
    """

    def __init__(
        self,
        problem: Callable[[int], Problem],
        size: int,
        encode: Callable[[Problem], Sequence[int]],
        grader: Grader,
        max_prompt_tokens: int,
    ) -> None:
        """Define the set.

        Args:
            problem: the problem of a number.
            size: after how many numbers the problems come again.
            encode: token ids of a problem's prompt.
            grader: of the responses.
            max_prompt_tokens: what the experiment allows and the model's context leaves beside a response; a longer
                prompt is passed over.
        """
        self._problem = problem
        self._size = size
        self._encode = encode
        self._grader = grader
        self._max_prompt_tokens = max_prompt_tokens

    def draw(self, cursor: int) -> Prompt:
        """The first prompt from number `cursor` on that is short enough.

        Raises:
            ConfigError: all are too long.
        """
        shortest = None
        for number in range(cursor, cursor + self._size):
            token_ids = np.asarray(self._encode(self._problem(number)), np.int32)
            if len(token_ids) <= self._max_prompt_tokens:
                return Prompt(number=number, token_ids=token_ids)
            shortest = min(len(token_ids), shortest or len(token_ids))
        raise self._too_long(f"{shortest} tokens in the shortest")

    def first(self, num_problems: int | None) -> list[Prompt]:
        """The prompts of the first `num_problems` problems, of all when it is None; those that are too long left out.

        Raises:
            ConfigError: all are too long.
        """
        end = self.count(num_problems)
        prompts: list[Prompt] = []
        cursor = 0
        while cursor < end and (prompt := self.draw(cursor)).number < end:
            prompts.append(prompt)
            cursor = prompt.number + 1
        if not prompts:
            raise self._too_long(f"more tokens in each of the first {end}")
        return prompts

    def count(self, num_problems: int | None) -> int:
        """How many problems the first `num_problems` are, those with too long a prompt counted."""
        return self._size if num_problems is None else min(self._size, num_problems)

    def problem(self, number: int) -> Problem:
        """The problem of a number."""
        return self._problem(number)

    def grade(self, numbers: Sequence[int], responses: Sequence[Sequence[Response]]) -> list[tuple[Grade, ...]]:
        """Grades of the responses to each of the problems."""
        problems = map(self._problem, numbers)
        return self._grader.grade(list(zip(problems, responses, strict=True)))

    def text(self, num_tokens: int) -> IntArray:
        """At least that many token ids of prompts, one after the other."""
        pieces: list[IntArray] = []
        cursor = 0
        while sum(map(len, pieces)) < num_tokens:
            prompt = self.draw(cursor)
            pieces.append(prompt.token_ids)
            cursor = prompt.number + 1
        return np.concatenate(pieces)

    def _too_long(self, found: str) -> ConfigError:
        return ConfigError(
            "task",
            "prompts",
            found,
            f"at most {self._max_prompt_tokens}: rollout.max_prompt_tokens, and what the model's context leaves beside "
            "a response",
        )
