"""A real FSDP2 rank on a GPU: the same numbers as on a CPU, and the memory that its options save."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learner_ranks import batch, order, save, shard_of, train, weights_of
from torch import Tensor

from actors.config import OffloadConfig
from actors.learner import Learner
from actors.token_scores import score_tokens

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

SHARD = shard_of(batch()[:4], batch()[4:])
ON_GPU = {"gpus_per_worker": 1.0}
VOCABULARY, WIDTH = 151_936, 256


def largest_difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def gradient(learner: Learner) -> Tensor:
    """All of it, flat, on the CPU; it is dropped afterwards."""
    learner.compute_gradients(SHARD)
    pieces = [parameter.grad.full_tensor().flatten().cpu() for parameter in learner._model.parameters()]
    learner.apply(order(lr=1.0, update=False))
    return torch.cat(pieces)


def angle(one: Tensor, other: Tensor) -> float:
    """Cosine of it."""
    return float(torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0))


@pytest.mark.parametrize(("dtype", "scores_within", "cosine"), [("float32", 1e-3, 0.9999), ("bfloat16", 0.5, 0.98)])
def test_scores_and_gradient_are_those_of_float32_on_a_cpu(
    build: Callable[..., Learner], dtype: str, scores_within: float, cosine: float
) -> None:
    on_cpu = build()
    scores, exact = on_cpu.score(batch()), gradient(on_cpu)
    learner = build(**ON_GPU, dtype=dtype)
    assert learner._model.device.type == "cuda"
    assert {parameter.device.type for parameter in learner._model.parameters()} == {"cuda"}
    assert largest_difference(learner.score(batch()), scores) < scores_within
    found = gradient(learner)
    assert angle(found, exact) > cosine
    assert float(found.norm()) == pytest.approx(float(exact.norm()), rel=0.1)


@pytest.mark.parametrize("offload", [OffloadConfig(parameters=True), OffloadConfig(optimizer=True)])
def test_offloaded_state_is_in_host_memory_and_trains_saves_and_loads_as_ever(
    build: Callable[..., Learner], offload: OffloadConfig, tmp_path: Path
) -> None:
    plain = build(**ON_GPU)
    expected = train(plain, SHARD, steps=2)
    weights = weights_of(plain)
    learner = build(**ON_GPU, offload=offload)
    reports = train(learner, SHARD, steps=1)
    moments = [state["exp_avg"] for state in learner._optimizer.state.values()]
    assert {moment.device.type for moment in moments} == {"cpu"}
    assert {parameter.device.type for parameter in learner._model.parameters()} == {
        "cpu" if offload.parameters else "cuda"
    }
    assert isinstance(save(learner, tmp_path / "learner"), tuple)
    reports += train(learner, SHARD, steps=1)
    for one, other in zip(reports, expected, strict=True):
        assert one.grad_square_sum == pytest.approx(other.grad_square_sum, rel=1e-4)
    sent = weights_of(learner)
    assert all(torch.allclose(sent[name].cpu(), weights[name].cpu(), atol=1e-5) for name in weights)
    again = build(**ON_GPU, offload=offload)
    again.load(str(tmp_path / "learner"))
    assert train(again, SHARD, steps=1)[0].grad_square_sum == pytest.approx(expected[1].grad_square_sum, rel=1e-4)


def peak_bytes(work: Callable[[], Any]) -> int:
    """GPU memory that some work takes beyond what was taken before."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def test_checkpointed_activations_take_less_memory_and_give_the_same_gradient(build: Callable[..., Learner]) -> None:
    long = [sequence for sequence in batch() for _ in range(64)]
    gradients, peaks = [], []
    for checkpointing in (False, True):
        learner = build(**ON_GPU, activation_checkpointing=checkpointing)
        gradients.append(gradient(learner))
        peaks.append(peak_bytes(lambda learner=learner: learner.compute_gradients(shard_of(long))))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-5 * float(gradients[0].abs().max()))
    assert peaks[1] < peaks[0]


def test_logprobs_over_a_vocabulary_of_152k_take_no_more_memory_for_more_tokens() -> None:
    chunk_tokens = 64 * 2**20 // (4 * VOCABULARY)
    head = torch.randn(VOCABULARY, WIDTH, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    def work(num_tokens: int) -> None:
        hidden = torch.randn(num_tokens, WIDTH, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        targets = torch.randint(0, VOCABULARY, (num_tokens,), device="cuda")
        score_tokens(hidden, head, targets, 1.0, chunk_tokens).logprobs.sum().backward()
        head.grad = None

    few, many = (peak_bytes(lambda n=n: work(n)) for n in (1024, 8192))
    assert many - few < 32 * 2**20, "hidden states and numbers per token only, no logits"


@pytest.mark.skipif(find_spec("flash_attn") is None, reason="needs the package flash-attn")
def test_flash_attention_gives_the_scores_and_the_gradient_of_sdpa(build: Callable[..., Learner]) -> None:
    plain = build(**ON_GPU, dtype="bfloat16", attention="sdpa")
    scores, expected = plain.score(batch()), gradient(plain)
    learner = build(**ON_GPU, dtype="bfloat16")
    assert learner._model.model.config._attn_implementation == "flash_attention_2"
    assert largest_difference(learner.score(batch()), scores) < 0.5
    assert angle(gradient(learner), expected) > 0.98
