"""Problems behind a tokenizer: prompts that fit, grades by number, and running text for probes."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Response
from orchestrator.config_errors import ConfigError
from orchestrator.grading import Grader
from orchestrator.problem_set import ProblemSet
from orchestrator.problems.problem import Problem
from orchestrator.rewards.scores import RewardItem, Score


class FakeTokenizer:
    """One token a character."""

    def batch_decode(self, rows: list[list[int]], *, skip_special_tokens: bool) -> list[str]:
        return ["".join(map(chr, row)) for row in rows]


def exact(items: Sequence[RewardItem]) -> list[Score]:
    return [Score.of(item.response == item.answer, item.response) for item in items]


def problems(prompts: Sequence[str], max_prompt_tokens: int = 8) -> ProblemSet:
    """Without end; the answer to a prompt is the prompt."""

    def problem(number: int) -> Problem:
        prompt = prompts[number % len(prompts)]
        return Problem(prompt=prompt, answer=prompt)

    return ProblemSet(
        problem, len(prompts), lambda one: list(map(ord, one.text)), Grader(FakeTokenizer(), exact), max_prompt_tokens
    )


def response(text: str) -> Response:
    ids = np.array([*map(ord, text)], np.int32)
    return Response(token_ids=ids, logprobs=np.zeros(len(ids), np.float32), finished=True, weight_version=0)


def test_a_prompt_has_its_number_and_its_token_ids() -> None:
    prompt = problems(["ab", "cd"]).draw(3)
    assert prompt.number == 3
    assert prompt.token_ids.tolist() == [ord("c"), ord("d")]
    assert prompt.token_ids.dtype == np.int32


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=20), cursor=st.integers(0, 50))
def test_the_prompt_drawn_is_the_first_from_the_cursor_on_that_is_short_enough(lengths: list[int], cursor: int) -> None:
    known = problems(["x" * length for length in lengths])
    if min(lengths) > 8:
        with pytest.raises(ConfigError):
            known.draw(cursor)
        return
    number = known.draw(cursor).number
    assert lengths[number % len(lengths)] <= 8
    assert all(lengths[passed % len(lengths)] > 8 for passed in range(cursor, number))


def test_when_all_prompts_are_too_long_the_message_has_the_shortest() -> None:
    with pytest.raises(ConfigError) as raised:
        problems(["x" * 12, "x" * 9]).draw(1)
    message = str(raised.value)
    assert message.startswith("task: prompts: got '9 tokens in the shortest', expected at most 8: rollout.max_prompt")
    assert "\n" not in message


def test_the_first_prompts_are_those_of_one_round_without_the_too_long() -> None:
    known = problems(["a", "x" * 9, "b", "c", "x" * 9])
    assert [prompt.number for prompt in known.first(None)] == [0, 2, 3]
    assert [prompt.number for prompt in known.first(3)] == [0, 2]
    assert [prompt.number for prompt in known.first(99)] == [0, 2, 3]
    assert [known.count(num_problems) for num_problems in (None, 3, 99)] == [5, 3, 5]


def test_responses_are_graded_by_their_own_problem() -> None:
    known = problems(["ab", "cd"])
    grades = known.grade([0, 1], [[response("ab"), response("cd")], [response("cd")]])
    assert [[grade.score for grade in some] for some in grades] == [[1.0, 0.0], [1.0]]


@given(num_tokens=st.integers(1, 200))
def test_text_is_prompts_one_after_the_other_as_many_as_are_needed(num_tokens: int) -> None:
    pieces = [f"<{number}>" for number in range(200)]
    text = "".join(map(chr, problems(pieces).text(num_tokens)))
    found = text.removeprefix("<").removesuffix(">").split("><")
    assert found == [str(number) for number in range(len(found))]
    assert len(text) >= num_tokens > len(text) - len(f"<{found[-1]}>")
