"""A task's problems as the workers see them: prompts as token ids, responses as rewards."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from actors.messages import IntArray, Response
from orchestrator.config_errors import ConfigError
from orchestrator.rewards import arithmetic_reward
from orchestrator.tasks import Problem


class ProblemSet:
    """An endless numbered stream of problems behind a tokenizer.

    training = ProblemSet(task.problem, tokenizer, max_prompt_tokens=448)
    training.score(17, responses)
    """

    def __init__(self, problem: Callable[[int], Problem], tokenizer: Any, max_prompt_tokens: int) -> None:
        """Define the set.

        Args:
            problem: the problem of a number.
            tokenizer: of the model, from transformers.
            max_prompt_tokens: what the experiment allows and the model's context leaves beside a response.
        """
        self._problem = problem
        self._tokenizer = tokenizer
        self._max_prompt_tokens = max_prompt_tokens

    def encode(self, number: int) -> IntArray:
        """[P] token ids of a problem's prompt.

        Raises:
            ConfigError: the prompt is longer than the experiment allows.
        """
        ids: list[int] = self._tokenizer(self._problem(number).prompt, add_special_tokens=False)["input_ids"]
        if len(ids) > self._max_prompt_tokens:
            raise ConfigError(
                "task",
                f"prompt {number}",
                f"{len(ids)} tokens",
                f"at most {self._max_prompt_tokens}: rollout.max_prompt_tokens, and what the model's context leaves "
                "beside a response",
            )
        return np.asarray(ids, np.int32)

    def score(self, number: int, responses: Sequence[Response]) -> list[float]:
        """Rewards of responses to a problem."""
        answer = self._problem(number).answer
        texts = self._tokenizer.batch_decode(
            [response.token_ids.tolist() for response in responses], skip_special_tokens=True
        )
        return [arithmetic_reward(text, answer) for text in texts]

    def text(self, num_tokens: int) -> IntArray:
        """At least that many token ids of prompts, one after the other."""
        pieces: list[IntArray] = []
        while sum(map(len, pieces)) < num_tokens:
            pieces.append(self.encode(len(pieces)))
        return np.concatenate(pieces)
