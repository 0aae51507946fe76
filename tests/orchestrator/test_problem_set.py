"""Problems behind a tokenizer: prompts that fit, rewards of decoded responses, and running text for probes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Response
from orchestrator.config_errors import ConfigError
from orchestrator.problem_set import ProblemSet
from orchestrator.tasks import ArithmeticTask, Problem

END = 0  # the end token


class FakeTokenizer:
    """One token a character; the end token is special, and so is the 1 that it would put in front if it were asked."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [1] * add_special_tokens + [ord(character) for character in text]}

    def batch_decode(self, rows: list[list[int]], *, skip_special_tokens: bool) -> list[str]:
        assert all(type(token) is int for row in rows for token in row)
        return ["".join(chr(token) for token in row if not (skip_special_tokens and token == END)) for row in rows]


def problems(max_prompt_tokens: int = 8) -> ProblemSet:
    return ProblemSet(ArithmeticTask(digits=3, seed=0).problem, FakeTokenizer(), max_prompt_tokens)


def response(text: str) -> Response:
    ids = np.array([*map(ord, text), END], np.int32)
    return Response(token_ids=ids, logprobs=np.zeros(len(ids), np.float32), finished=True, weight_version=0)


def test_a_prompt_is_encoded_without_special_tokens() -> None:
    ids = problems().encode(7)
    assert "".join(map(chr, ids)) == ArithmeticTask(digits=3, seed=0).problem(7).prompt
    assert ids.dtype == np.int32


def test_a_prompt_as_long_as_the_experiment_allows_is_taken_and_a_longer_one_is_a_mistake_that_names_it() -> None:
    assert len(problems(max_prompt_tokens=8).encode(7)) == 8
    with pytest.raises(ConfigError) as raised:
        problems(max_prompt_tokens=7).encode(7)
    message = str(raised.value)
    assert message.startswith("task: prompt 7: got '8 tokens', expected at most 7: rollout.max_prompt_tokens")
    assert "\n" not in message


def test_responses_are_scored_by_their_own_problem_without_the_end_token() -> None:
    task, known = ArithmeticTask(digits=3, seed=0), problems()
    answer = task.problem(7).answer
    assert task.problem(8).answer != answer
    responses = [response(f"#{answer}"), response(f"#{answer}0"), response(answer)]
    assert known.score(7, responses) == [1.0, 0.0, 0.0]
    assert known.score(8, responses) == [0.0, 0.0, 0.0]
    assert known.score(7, []) == []


@given(num_tokens=st.integers(1, 200))
def test_text_is_prompts_one_after_the_other_as_many_as_are_needed(num_tokens: int) -> None:
    known = ProblemSet(lambda number: Problem(prompt=f"<{number}>", answer=""), FakeTokenizer(), 8)
    text = "".join(map(chr, known.text(num_tokens)))
    pieces = text.removeprefix("<").removesuffix(">").split("><")
    assert pieces == [str(number) for number in range(len(pieces))]
    assert len(text) >= num_tokens > len(text) - len(f"<{pieces[-1]}>")
