"""Rows checked: every answer as text, and what each cell may not be."""

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.problems.blocks import Cells
from orchestrator.problems.keys import Keys
from orchestrator.problems.problem import Message, Problem
from orchestrator.problems.rows import RowReader, canonical

KEYS = Keys(prompt=("prompt",), answer=("reward_model", "truth"), source=("data_source",), extra=("extra_info",))
GOOD = Cells(prompt="1+1=", answer="2", source=None, extra=None)
PROMPT = "a text that is not blank, or a list of messages with role and content"
ANSWER = "an answer: a text that is not blank, a number, true or false"


def read(pattern: str | None = None, **cells: Any) -> Problem:
    return RowReader("a.jsonl", KEYS, pattern).problem(GOOD._replace(**cells), "line 7")


def mistake_in(pattern: str | None = None, **cells: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        read(pattern, **cells)
    return str(raised.value).removeprefix("a.jsonl: line 7: ")


def test_a_row_becomes_a_problem() -> None:
    extra = {"index": 3}
    assert read(source="gsm8k", extra=extra) == Problem(prompt="1+1=", answer="2", source="gsm8k", extra=extra)
    assert read() == read(source=MISSING, extra=MISSING) == Problem(prompt="1+1=", answer="2")


def test_messages_are_taken_with_role_and_content_only() -> None:
    messages = [{"role": "system", "content": ""}, {"role": "user", "content": " 1+1= ", "name": "ada"}]
    assert read(prompt=messages).prompt == (
        Message(role="system", content=""),
        Message(role="user", content=" 1+1= "),
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (" 18\n", "18"),
        (18, "18"),
        (-3, "-3"),
        (18.0, "18"),
        (-0.0, "0"),
        (100.0, "100"),
        (0.1, "0.1"),
        (2.5e-7, "0.00000025"),
        (1e22, "10000000000000000000000"),
        (Decimal("18.50"), "18.5"),
        (Decimal("-0.00"), "0"),
        (Decimal("1E+3"), "1000"),
        (Decimal("12345678901234567890123456789012345678"), "12345678901234567890123456789012345678"),
        (True, "true"),
        (False, "false"),
    ],
)
def test_every_answer_is_read_as_text_and_a_number_without_an_exponent(value: Any, text: str) -> None:
    assert read(answer=value).answer == text


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_the_text_of_a_number_is_that_number(number: float) -> None:
    text = canonical(number)
    assert type(number)(text) == number
    assert "e" not in text and not text.endswith(".") and text != "-0"


@pytest.mark.parametrize(
    ("pattern", "text", "answer"),
    [
        ("#### (.+)", "He eats 3.\n#### 12\nNo:\n#### 18 ", "18"),
        (r"-?\d+", "from 16 to -3 eggs", "-3"),
        (r"(\d+) (apples)", "18 apples", "18"),
    ],
)
def test_a_pattern_takes_group_one_or_the_whole_of_its_last_match(pattern: str, text: str, answer: str) -> None:
    assert read(pattern, answer=text).answer == answer


@pytest.mark.parametrize("pattern", ["#### (.+)", "she( has)?", "she(  )", "x*$"])
def test_a_pattern_that_finds_nothing_leaves_a_row_without_an_answer(pattern: str) -> None:
    assert mistake_in(pattern, answer="she  18") == (
        f"reward_model.truth: got 'she  18', expected a text in which answer_pattern {pattern!r} finds an answer"
    )


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (None, "got null, "),
        ("", "got '', "),
        (" \n", r"got ' \n', "),
        (["18"], "got ['18'], "),
        ({"value": "18"}, "got {'value': '18'}, "),
        (b"18", "got b'18', "),
        (math.nan, "got nan, "),
        (math.inf, "got inf, "),
        (Decimal("NaN"), "got Decimal('NaN'), "),
    ],
)
def test_an_answer_that_is_none_is_refused(value: Any, got: str) -> None:
    assert mistake_in(answer=value) == f"reward_model.truth: {got}expected {ANSWER}"


def test_a_row_that_lacks_a_key_is_told_so() -> None:
    assert mistake_in(answer=MISSING) == f"reward_model.truth: expected {ANSWER}; it is missing"
    assert mistake_in(prompt=MISSING) == f"prompt: expected {PROMPT}; it is missing"
    assert mistake_in(prompt=[{"role": "user"}]) == "prompt[0].content: expected a text; it is missing"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, f"prompt: got null, expected {PROMPT}"),
        ("", f"prompt: got '', expected {PROMPT}"),
        ("\n", f"prompt: got '\\n', expected {PROMPT}"),
        (18, f"prompt: got 18, expected {PROMPT}"),
        ([], f"prompt: got [], expected {PROMPT}"),
        (["1+1="], "prompt[0]: got '1+1=', expected a message with role and content"),
        (
            [{"role": "user", "content": "1+1="}, {"role": "", "content": "2"}],
            "prompt[1].role: got '', expected a text that is not empty",
        ),
        ([{"role": 1, "content": "1+1="}], "prompt[0].role: got 1, expected a text that is not empty"),
        ([{"role": "user", "content": None}], "prompt[0].content: got null, expected a text"),
        ([{"role": "user", "content": ["1+1="]}], "prompt[0].content: got ['1+1='], expected a text"),
        (
            [{"role": "u", "content": " "}],
            f"prompt: got [{{'role': 'u', 'content': ' '}}], expected {PROMPT}",
        ),
    ],
)
def test_a_prompt_that_asks_nothing_is_refused(value: Any, said: str) -> None:
    assert mistake_in(prompt=value) == said


def test_a_source_is_a_text_and_extra_is_an_object() -> None:
    assert mistake_in(source=3) == "data_source: got 3, expected a text or null"
    assert mistake_in(extra="{}") == "extra_info: got '{}', expected a struct, an object or null"
