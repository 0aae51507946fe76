"""The character tokenizer, as built and as shipped."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from orchestrator.demo.corpus import CHARACTERS, CorpusMixture, warm_start_sample
from orchestrator.demo.tokenizer import EOS, PAD, UNK, build_tokenizer
from orchestrator.demo.warm_start import MAX_LENGTH, MODEL_FOLDER


@pytest.fixture(params=["built", "saved", "shipped"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> PreTrainedTokenizerFast:
    built = build_tokenizer(MAX_LENGTH)
    if request.param == "built":
        return built
    built.save_pretrained(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path if request.param == "saved" else MODEL_FOLDER)


def test_every_character_is_one_token_and_comes_back(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode(CHARACTERS)
    assert len(ids) == len(set(ids)) == len(CHARACTERS)
    assert tokenizer.unk_token_id not in ids
    assert [tokenizer.decode([token]) for token in ids] == list(CHARACTERS)


def test_corpus_text_round_trips_without_spaces(tokenizer: PreTrainedTokenizerFast) -> None:
    for index in range(100):
        sample = warm_start_sample(CorpusMixture(), seed=3, index=index)
        text = sample.problem.prompt + sample.response
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_are_distinct_never_added_and_can_be_skipped(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_tokens_to_ids([PAD, EOS, UNK]) == [0, 1, 2]
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token) == (PAD, EOS, UNK)
    ids = [*tokenizer.encode("#12"), tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert len(ids) == len("#12") + 2
    assert tokenizer.decode(ids, skip_special_tokens=True) == "#12"


def test_characters_outside_the_corpus_become_unknown_one_by_one(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.encode("1 \né") == [tokenizer.convert_tokens_to_ids("1")] + [tokenizer.unk_token_id] * 3
