"""The exported folder: transformers computes from it what the learner computed; it is there whole or not at all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learner_ranks import HEAD, SPEC, batch, largest_difference, order, shard_of
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors import model_export
from actors.learner import Learner

pytestmark = pytest.mark.slow


@pytest.fixture
def learner(build: Callable[..., Learner]) -> Learner:
    """A policy that is no longer the one that was loaded."""
    learner = build()
    learner.compute_gradients(shard_of(batch()))
    learner.apply(order(lr=100.0))
    return learner


def scores_of(folder: Path, **options: Any) -> list[np.ndarray]:
    """Log-probs of the batch's responses through transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    found = []
    for sequence in batch():
        ids = torch.tensor([*sequence.prompt_ids, *sequence.response_ids])[None]
        with torch.no_grad():
            logits = model(ids).logits[0].float() / SPEC.temperature
        logprobs = torch.log_softmax(logits, -1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
        found.append(logprobs[len(sequence.prompt_ids) - 1 :].numpy())
    return found


def test_transformers_computes_the_learners_log_probs_from_the_folder(learner: Learner, tmp_path: Path) -> None:
    learner.export(str(tmp_path / "model"), "float32")
    assert largest_difference(scores_of(tmp_path / "model"), learner.score(batch())) < 1e-4
    assert largest_difference(scores_of(Path(SPEC.model), dtype=torch.float32), learner.score(batch())) > 1e-2
    assert sorted(path.name for path in tmp_path.glob("model*")) == ["model"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer("347+285=")["input_ids"] == AutoTokenizer.from_pretrained(SPEC.model)("347+285=")["input_ids"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_files_hold_the_dtype_asked_for_and_say_so(learner: Learner, tmp_path: Path, dtype: str) -> None:
    learner.export(str(tmp_path / "model"), dtype)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == dtype
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    assert HEAD not in tensors, "tied to the embedding"
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, dtype)}


def test_large_models_go_into_several_files_with_an_index(
    learner: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_export, "SHARD_BYTES", 300_000)
    learner.export(str(tmp_path / "model"), "float32")
    files = sorted(path.name for path in (tmp_path / "model").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files)
    assert largest_difference(scores_of(tmp_path / "model"), learner.score(batch())) < 1e-4


def test_an_export_replaces_what_is_there_and_what_an_interrupted_one_left(learner: Learner, tmp_path: Path) -> None:
    for leftover in ("model", "model.partial"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "old.safetensors").write_bytes(b"torn")
    learner.export(str(tmp_path / "model"), "float32")
    assert not list(tmp_path.glob("**/old.safetensors"))
    assert not (tmp_path / "model.partial").exists()
