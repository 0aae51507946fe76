"""Keys looked up: defaults in their order, dots that lead into structs, and what is said of those that lead nowhere."""

from typing import Any

import pytest

from orchestrator.config_errors import ConfigError
from orchestrator.problems.config import ColumnsConfig
from orchestrator.problems.keys import Keys

VERL: dict[str, Any] = {
    "data_source": {},
    "prompt": {},
    "ability": {},
    "reward_model": {"style": {}, "ground_truth": {}},
    "extra_info": {"split": {}, "index": {}},
}


def mistake_in(names: dict[str, Any], **keys: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        Keys.find(ColumnsConfig(**keys), names, "a.jsonl")
    return str(raised.value)


def test_the_layout_of_verl_is_found_with_defaults() -> None:
    assert Keys.find(ColumnsConfig(), VERL, "a.parquet") == Keys(
        prompt=("prompt",), answer=("reward_model", "ground_truth"), source=("data_source",), extra=("extra_info",)
    )


@pytest.mark.parametrize(
    ("names", "prompt", "answer"),
    [
        ({"question": {}, "answer": {}}, "question", "answer"),
        ({"question": {}, "problem": {}, "prompt": {}, "final_answer": {}}, "prompt", "final_answer"),
        ({"question": {}, "problem": {}, "solution": {}, "final_answer": {}}, "problem", "solution"),
        ({"prompt": {}, "reward_model": {"style": {}}, "answer": {}, "solution": {}}, "prompt", "answer"),
        ({"prompt": {}, "reward_model": {}, "answer": {}}, "prompt", "answer"),
    ],
)
def test_the_first_default_that_there_is_is_taken(names: dict[str, Any], prompt: str, answer: str) -> None:
    keys = Keys.find(ColumnsConfig(), names, "a.jsonl")
    assert (keys.prompt, keys.answer, keys.source, keys.extra) == ((prompt,), (answer,), None, None)


def test_only_those_that_are_there_have_paths() -> None:
    keys = Keys.find(ColumnsConfig(), {"prompt": {}, "answer": {}, "data_source": {}}, "a.jsonl")
    assert list(keys.paths()) == [("prompt",), ("answer",), ("data_source",)]


def test_a_key_that_was_asked_for_wins_over_the_defaults() -> None:
    config = ColumnsConfig(prompt_key="extra_info.index", answer_key="ability", source_key="extra_info.split")
    keys = Keys.find(config, VERL, "a.parquet")
    assert (keys.prompt, keys.answer, keys.source) == (("extra_info", "index"), ("ability",), ("extra_info", "split"))


def test_a_column_whose_name_has_a_dot_is_meant_before_a_field() -> None:
    names: dict[str, Any] = {"a.b": {}, "a": {"b": {}, "c": {}}}
    keys = Keys.find(ColumnsConfig(prompt_key="a.b", answer_key="a.c"), names, "a.jsonl")
    assert (keys.prompt, keys.answer) == (("a.b",), ("a", "c"))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"prompt_key": "promt"},
            "prompt_key: got 'promt', expected a column of the file; did you mean 'prompt'? one of: data_source, "
            "prompt, ability, reward_model, extra_info",
        ),
        (
            {"answer_key": "reward_model.groundtruth"},
            "answer_key: got 'reward_model.groundtruth', expected a field of 'reward_model'; did you mean "
            "'ground_truth'? one of: style, ground_truth",
        ),
        (
            {"answer_key": "ability.truth"},
            "answer_key: got 'ability.truth', expected a column with fields; 'ability' has none",
        ),
        (
            {"answer_key": "reward_model.style.truth"},
            "answer_key: got 'reward_model.style.truth', expected a column with fields; 'reward_model.style' has none",
        ),
        (
            {"answer_key": "reward_model."},
            "answer_key: got 'reward_model.', expected a field of 'reward_model'; one of: style, ground_truth",
        ),
        (
            {"source_key": "dataset"},
            "source_key: got 'dataset', expected a column of the file; did you mean 'data_source'? one of: "
            "data_source, prompt, ability, reward_model, extra_info",
        ),
        (
            {"extra_key": "more"},
            "extra_key: got 'more', expected a column of the file; one of: data_source, prompt, ability, "
            "reward_model, extra_info",
        ),
    ],
)
def test_a_key_that_was_asked_for_and_is_not_there_is_told_with_those_that_are(keys: dict[str, str], said: str) -> None:
    assert mistake_in(VERL, **keys) == f"a.jsonl: {said}"


def test_a_file_without_any_of_the_default_columns_is_told_with_those_it_has() -> None:
    assert mistake_in({"text": {}, "answer": {}}) == (
        "a.jsonl: prompt_key: expected the name of a column; there is none of prompt, problem, question, only: "
        "text, answer"
    )
    assert mistake_in({"prompt": {}, "gold": {}}) == (
        "a.jsonl: answer_key: expected the name of a column; there is none of reward_model.ground_truth, answer, "
        "solution, final_answer, only: prompt, gold"
    )
