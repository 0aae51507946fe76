"""Answers to sums, token by token."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from actors.simulated.sums import Sums
from orchestrator.model_files import embedded_model


@pytest.mark.parametrize(("prompt", "answer"), [("47+85=", "#132"), ("999+1=", "#1000")])
def test_a_sum_is_answered_as_the_task_wants_it(prompt: str, answer: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    sums = Sums.of(embedded_model())
    found = sums.answer(tokenizer.encode(prompt))
    assert found is not None
    assert tokenizer.decode(found) == answer
    assert sums.end == tokenizer.eos_token_id


@pytest.mark.parametrize("prompt", ["47+85", "47;85=", ""])
def test_what_is_no_sum_has_no_answer(prompt: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    assert Sums.of(embedded_model()).answer(tokenizer.encode(prompt)) is None


def test_without_a_tokenizer_nothing_is_a_sum(tmp_path: Path) -> None:
    sums = Sums.of(str(tmp_path))
    assert sums.answer([7, 13, 8, 14]) is None
    assert sums.end is None
