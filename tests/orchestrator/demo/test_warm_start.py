"""The shipped demo model and the warm start that makes it."""

from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from orchestrator.demo import warm_start
from orchestrator.demo.corpus import COLUMN_END, CorpusMixture, warm_start_sample
from orchestrator.demo.tokenizer import build_tokenizer
from orchestrator.demo.warm_start import IGNORED, MAX_LENGTH, MODEL_FOLDER, build_model, encode_batch, lr_at
from orchestrator.rewards import arithmetic_reward
from orchestrator.tasks import ArithmeticTask

MAX_BYTES = 4 * 2**20
NUM_PROMPTS = 256


@cache
def sampled_rewards() -> tuple[list[float], list[float]]:
    """Return the rewards of the shipped model's direct and of its step-by-step responses to held-out problems."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER, dtype=torch.float32)
    problems = [ArithmeticTask(digits=3, seed=0).validation(index) for index in range(NUM_PROMPTS)]
    prompts = tokenizer([problem.prompt for problem in problems], return_tensors="pt")["input_ids"]
    torch.manual_seed(0)
    tokens = model.generate(prompts, do_sample=True, max_new_tokens=64, top_k=0)[:, prompts.shape[1] :]
    direct: list[float] = []
    stepwise: list[float] = []
    for problem, response in zip(problems, tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=True):
        kind = stepwise if COLUMN_END in response else direct
        kind.append(arithmetic_reward(response, problem.answer))
    return direct, stepwise


def test_the_shipped_folder_is_complete_small_and_free_of_machine_paths() -> None:
    names = {path.name for path in MODEL_FOLDER.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in MODEL_FOLDER.iterdir()) <= MAX_BYTES
    assert not any(b"/work" in path.read_bytes() or b"/home" in path.read_bytes() for path in MODEL_FOLDER.iterdir())


def test_the_shipped_model_is_a_tied_bfloat16_qwen3_that_vllm_can_run() -> None:
    model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER)
    assert model.config.model_type == "qwen3"
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.head_dim in {32, 64, 128}
    assert model.config.max_position_embeddings == MAX_LENGTH
    assert len(AutoTokenizer.from_pretrained(MODEL_FOLDER)) <= model.config.vocab_size


def test_the_shipped_model_mixes_direct_and_stepwise_responses_as_its_corpus_does() -> None:
    direct, stepwise = sampled_rewards()
    assert len(stepwise) / (len(direct) + len(stepwise)) == pytest.approx(0.3, abs=0.1)


def test_longer_reasoning_pays_for_the_shipped_model() -> None:
    direct, stepwise = sampled_rewards()
    assert sum(direct) / len(direct) <= 1 - CorpusMixture().direct_error
    assert sum(stepwise) / len(stepwise) >= 0.55


def test_labels_cover_exactly_the_response_and_its_end() -> None:
    tokenizer = build_tokenizer(MAX_LENGTH)
    samples = [warm_start_sample(CorpusMixture(), seed=0, index=index) for index in range(16)]
    tokens, labels = encode_batch(samples, tokenizer)
    for sample, row_tokens, row_labels in zip(samples, tokens, labels, strict=True):
        labelled = row_labels != IGNORED
        assert tokenizer.decode(row_labels[labelled]) == sample.response + "<eos>"
        assert torch.equal(row_tokens[labelled], row_labels[labelled])
        assert torch.all(row_labels[: len(sample.problem.prompt)] == IGNORED)


def test_the_learning_rate_warms_up_to_its_peak_and_decays_to_almost_zero() -> None:
    rates = [lr_at(step) for step in range(warm_start.STEPS)]
    peak = rates.index(max(rates))
    assert 0 < rates[0] < rates[peak]
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[-1] < 0.01 * rates[peak]


def test_a_short_warm_start_is_repeatable_and_its_folder_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_start, "STEPS", 3)
    monkeypatch.setattr(warm_start, "BATCH_SIZE", 8)
    for name in ("one", "two"):
        warm_start.main(["--out", str(tmp_path / name), "--seed", "4"])
    one, two = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_shipped_configuration_is_the_one_that_the_code_builds() -> None:
    built = build_model(build_tokenizer(MAX_LENGTH)).config.to_dict()
    shipped = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER).config.to_dict()
    keys = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "eos_token_id",
    )
    assert {key: built[key] for key in keys} == {key: shipped[key] for key in keys}
