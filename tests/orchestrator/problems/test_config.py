"""The columns block: its defaults, and mistakes that need no file to be seen."""

from typing import Any, Literal

import pytest
from pydantic import ValidationError

from orchestrator.config_errors import describe
from orchestrator.problems.config import ColumnsConfig


class FileTask(ColumnsConfig):
    """A block that takes the columns in."""

    kind: Literal["file"]
    train: str


def mistake_in(**keys: Any) -> str:
    tree = {"kind": "file", "train": "a.jsonl", **keys}
    with pytest.raises(ValidationError) as raised:
        FileTask.model_validate(tree)
    return str(describe(raised.value, FileTask, tree, "a.yaml", lambda path: ".".join(("task", *path))))


def test_nothing_has_to_be_said() -> None:
    task = FileTask(kind="file", train="a.jsonl")
    assert (task.prompt_key, task.answer_key, task.answer_pattern, task.template) == (None, None, None, "chat")
    assert (task.source_key, task.extra_key) == ("data_source", "extra_info")


@pytest.mark.parametrize("template", ["chat", "plain", "Solve {problem}: {}", "{problem}{problem}"])
def test_two_templates_have_names_and_any_text_with_a_place_is_one(template: str) -> None:
    assert ColumnsConfig(template=template).template == template


@pytest.mark.parametrize("template", ["", "Chat", "Solve {Problem}", "Solve { problem }"])
def test_a_template_that_drops_the_problem_is_refused(template: str) -> None:
    assert mistake_in(template=template) == (
        f"a.yaml: task.template: got {template!r}, expected chat, plain, or a text with {{problem}} in it"
    )


def test_a_pattern_that_is_no_regular_expression_is_refused_with_the_reason() -> None:
    assert mistake_in(answer_pattern="#### (.+") == (
        "a.yaml: task.answer_pattern: got '#### (.+', expected a regular expression (missing ), unterminated "
        "subpattern at position 5)"
    )


@pytest.mark.parametrize("key", ["prompt_key", "answer_key", "source_key", "extra_key"])
def test_a_key_is_not_empty(key: str) -> None:
    assert mistake_in(**{key: ""}) == f"a.yaml: task.{key}: got '', expected text of 1 or more characters"


def test_a_key_that_does_not_exist_is_refused() -> None:
    assert mistake_in(promt_key="a") == (
        "a.yaml: task.promt_key: got 'a', expected a known key; did you mean 'prompt_key'?"
    )
