"""The gradient of every loss x correction x advantage against plain autograd; the two halves whatever the split."""

import itertools
import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from plain_reference import full_log_softmax, plain_gradient
from product_count import ProductCount
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from actors.config import AdvantageKind, LearnerConfig
from actors.gradient_noise import HalfSums
from actors.gradient_pass import GradientPass
from actors.logprob_pairs import NonFiniteLogprob
from actors.lr_policies import ConstantConfig
from actors.messages import GradientReport, LearnerShard, StepDecision, TrainSequence
from actors.policy_model import PolicyModel
from actors.scheduler import Scheduler
from actors.statistics import MismatchSums
from orchestrator.advantages import group_advantages
from orchestrator.batching import shard_batch

VOCABULARY, TEMPERATURE, MAX_RESPONSE_TOKENS = 32, 0.9, 16
LOSSES = ("token_mean", "sequence_mean", "constant")
ADVANTAGES: tuple[AdvantageKind, ...] = ("grpo", "dr_grpo", "rloo", "optimal_token_baseline")
CORRECTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "token_tis": {},
    "sequence_tis": {},
    "token_mask": {},
    "sequence_mask": {},
    "geometric_mask": {},
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On tensors this small several threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def learner_config(loss: str, advantage: str, correction: str) -> LearnerConfig:
    """Without clipping, so that the scheduler's factor is only what dropped sequences call for."""
    return LearnerConfig.model_validate(
        {"loss": loss, "advantage": advantage, "correction": {"kind": correction}, "grad_clip": 1e9}
    )


@cache
def tiny_model(dtype: torch.dtype) -> PreTrainedModel:
    """Two layers, random, not too sharp; the same weights in both precisions."""
    torch.manual_seed(5)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config)
    for name, module in list(model.named_modules()):
        if "RMSNorm" in type(module).__name__:  # it computes in float32 whatever the model is in, gradients too
            exact = torch.nn.RMSNorm(module.weight.shape[0], eps=config.rms_norm_eps)
            exact.weight = torch.nn.Parameter(1 + 0.1 * torch.randn_like(module.weight))
            model.set_submodule(name, exact)
    return model.to(dtype)


@cache
def raw_batch() -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, int, float], ...]:
    """Five prompts with three ragged responses each: tokens, sampler's log-probs, group, reward.

    Sampler and learner differ by next to nothing in some sequences and by a lot in others, so that every correction
    keeps some and touches some.
    """
    rng = np.random.default_rng(3)
    rows = []
    for group in range(5):
        prompt = rng.integers(0, VOCABULARY, 3 + group).astype(np.int32)
        for member in range(3):
            response = rng.integers(0, VOCABULARY, int(rng.integers(1, 12))).astype(np.int32)
            bare = TrainSequence(
                group=group, prompt_ids=prompt, response_ids=response, rollout_logprobs=np.empty(0), advantage=0.0
            )
            table = full_log_softmax(tiny_model(torch.float64), bare, TEMPERATURE)
            exact = table[range(len(response)), response.tolist()].detach().numpy()
            noise = rng.normal(size=len(response)) * (1e-4, 0.3, 1.2)[member]
            rows.append((prompt, response, (exact + noise).astype(np.float32), group, float(rng.normal())))
    return tuple(rows)


def batch(advantage: AdvantageKind) -> list[TrainSequence]:
    rows = raw_batch()
    values: dict[int, list[float]] = {}
    for group in range(5):
        rewards = [row[4] for row in rows if row[3] == group]
        values[group] = group_advantages(advantage, rewards).tolist()
    return [
        TrainSequence(
            group=group,
            prompt_ids=prompt,
            response_ids=response,
            rollout_logprobs=rollout,
            advantage=values[group][i % 3],
        )
        for i, (prompt, response, rollout, group, _) in enumerate(rows)
    ]


def run(
    config: LearnerConfig, dtype: torch.dtype, shards: Sequence[LearnerShard]
) -> tuple[torch.Tensor, list[GradientReport]]:
    """The gradient [all parameters] that the ranks' passes add up to, before the scheduler's factor."""
    model = PolicyModel(tiny_model(dtype), TEMPERATURE, chunk_bytes=4 * VOCABULARY * 7)
    total, reports = torch.zeros((), dtype=dtype), []
    for shard in shards:  # one rank after the other; the halves' products are only right for a single rank
        model.zero_grad()
        reports.append(GradientPass(model, config, MAX_RESPONSE_TOKENS, world_size=1).run(shard))
        total = total + torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    return total, reports


def decide(config: LearnerConfig, reports: Sequence[GradientReport], num_prompts: int = 5) -> StepDecision:
    return Scheduler(ConstantConfig().build(total_steps=None), config).decide(0, reports, {}, num_prompts)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("loss", "correction", "advantage"), list(itertools.product(LOSSES, CORRECTIONS, ADVANTAGES)))
def test_the_gradient_is_that_of_plain_autograd(
    loss: str, correction: str, advantage: AdvantageKind, dtype: torch.dtype
) -> None:
    config = learner_config(loss, advantage, correction)
    sequences = batch(advantage)
    shards = shard_batch(sequences, 1, 40, halves=True, whole_groups=advantage == "optimal_token_baseline")
    gradient, reports = run(config, dtype, shards)
    order = decide(config, reports)
    expected, expected_loss = plain_gradient(
        tiny_model(torch.float64), sequences, config, TEMPERATURE, MAX_RESPONSE_TOKENS
    )
    exact = torch.cat([grad.flatten() for grad in expected])
    difference = (gradient.double() * order.grad_scale - exact).norm() / exact.norm()
    assert exact.norm() > 1e-3
    assert float(difference) < TOLERANCE[dtype]
    assert order.metrics["gradient/norm"] == pytest.approx(float(exact.norm()), rel=TOLERANCE[dtype])
    assert order.metrics["policy/loss"] == pytest.approx(expected_loss, rel=1e-5, abs=1e-6)


def test_the_batch_of_the_test_above_has_something_for_every_correction() -> None:
    for kind in CORRECTIONS.keys() - {"none"}:
        config = learner_config("token_mean", "grpo", kind)
        _, reports = run(config, torch.float64, shard_batch(batch("grpo"), 1, 4096))
        sums = GradientReport().merge(*reports).correction
        assert 0 < sums.tokens_kept <= sums.tokens == sum(len(row[1]) for row in raw_batch())
        assert sums.weight != pytest.approx(sums.tokens)
        dropping = kind in ("sequence_mask", "geometric_mask")
        assert (0 < sums.sequences_kept < 15) if dropping else sums.sequences_kept == 15


@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_the_split_into_microbatches_and_ranks_changes_nothing(advantage: AdvantageKind) -> None:
    config = learner_config("token_mean", advantage, "token_tis")
    whole_groups = advantage == "optimal_token_baseline"
    whole, _ = run(config, torch.float64, shard_batch(batch(advantage), 1, 10_000))
    for ranks, budget in ((1, 1), (2, 60), (3, 25)):
        shards = shard_batch(batch(advantage), ranks, budget, halves=True, whole_groups=whole_groups)
        gradient, reports = run(config, torch.float64, shards)
        assert float((gradient - whole).norm() / whole.norm()) < 1e-12
        assert decide(config, reports).metrics["gradient/clipped"] == 0


def halves_by_hand(config: LearnerConfig) -> tuple[float, float]:
    """Signal and noise from the plain gradients of each half alone."""
    sequences = batch(config.advantage)
    halves = []
    for half in range(2):
        mine = [sequence for sequence in sequences if sequence.group % 2 == half]
        gradients, _ = plain_gradient(tiny_model(torch.float64), mine, config, TEMPERATURE, MAX_RESPONSE_TOKENS)
        halves.append(torch.cat([gradient.flatten() for gradient in gradients]))
    one, two = halves
    return float(one @ two), 3 * 2 / 5 * float((one - two).square().sum())


@pytest.mark.parametrize("correction", ["none", "token_tis", "sequence_mask"])
@pytest.mark.parametrize("loss", LOSSES)
def test_signal_and_noise_are_those_of_each_half_s_own_gradient(loss: str, correction: str) -> None:
    config = learner_config(loss, "grpo", correction)
    signal, noise = halves_by_hand(config)
    for budget in (10_000, 30):
        _, reports = run(config, torch.float64, shard_batch(batch("grpo"), 1, budget, halves=True))
        metrics = decide(config, reports).metrics
        assert metrics["gradient/signal"] == pytest.approx(signal, rel=1e-9)
        assert metrics["gradient/noise"] == pytest.approx(noise, rel=1e-9)
        assert metrics.get("gradient/noise_scale") == (pytest.approx(noise / signal) if signal > 0 else None)


def test_without_halves_nothing_is_estimated() -> None:
    config = learner_config("token_mean", "grpo", "none")
    _, reports = run(config, torch.float64, shard_batch(batch("grpo"), 1, 30))
    assert reports[0].halves == HalfSums()
    assert not {"gradient/signal", "gradient/noise", "gradient/noise_scale"} & decide(config, reports).metrics.keys()


def test_weights_of_single_tokens_spare_a_product_that_weights_of_sequences_cost() -> None:
    products = {}
    for kind in CORRECTIONS:
        with ProductCount() as count:
            run(learner_config("token_mean", "grpo", kind), torch.float32, shard_batch(batch("grpo"), 1, 10_000))
        products[kind] = count.products
    assert products["none"] == products["token_tis"] == products["token_mask"]
    assert products["none"] < products["sequence_tis"] == products["sequence_mask"] == products["geometric_mask"]


def test_when_everything_is_dropped_the_step_is_empty() -> None:
    config = LearnerConfig.model_validate({"correction": {"kind": "geometric_mask", "lo": 50.0, "hi": 60.0}})
    gradient, reports = run(config, torch.float64, shard_batch(batch("grpo"), 1, 30, halves=True))
    order = decide(config, reports)
    assert gradient.norm() == 0
    assert not order.update
    assert order.metrics["sampling/empty_steps"] == 1
    assert order.metrics["correction/sequences_kept"] == order.metrics["correction/weight_max"] == 0
    assert not any(key.startswith(("mismatch/", "gradient/", "policy/")) for key in order.metrics)
    assert order.decision.lr == order.metrics["scheduler/lr"] == 1e-6


def test_a_shard_of_empty_microbatches_reports_nothing() -> None:
    shard = LearnerShard(microbatches=((), ()), num_first_half=1, num_tokens=12, num_sequences=3)
    gradient, (report,) = run(learner_config("token_mean", "optimal_token_baseline", "none"), torch.float64, [shard])
    assert gradient.norm() == 0
    assert report == GradientReport(halves=report.halves)
    assert report.halves == HalfSums()


def test_nonfinite_gradient_elements_are_counted() -> None:
    (first, *_) = batch("grpo")
    poisoned = TrainSequence(
        group=0,
        prompt_ids=first.prompt_ids,
        response_ids=first.response_ids,
        rollout_logprobs=first.rollout_logprobs,
        advantage=math.inf,
    )
    config = learner_config("token_mean", "grpo", "none")
    _, (report,) = run(config, torch.float64, shard_batch([poisoned], 1, 100))
    assert report.nonfinite > 0
    assert not decide(config, [report]).update


def test_the_mismatch_is_over_all_tokens_whatever_the_correction_drops() -> None:
    plain, masked = (
        run(learner_config("token_mean", "grpo", kind), torch.float64, shard_batch(batch("grpo"), 1, 60))[1]
        for kind in ("none", "geometric_mask")
    )
    assert plain[0].mismatch == masked[0].mismatch
    assert isinstance(plain[0].mismatch, MismatchSums)
    assert plain[0].mismatch.tokens == sum(len(row[1]) for row in raw_batch())


@pytest.mark.parametrize("advantage", ["grpo", "optimal_token_baseline"])
def test_what_a_shard_asks_to_keep_is_there_in_its_own_order(advantage: AdvantageKind) -> None:
    config = learner_config("token_mean", advantage, "none")
    model = PolicyModel(tiny_model(torch.float64), TEMPERATURE, chunk_bytes=4 * VOCABULARY * 7)
    gradient_pass = GradientPass(model, config, MAX_RESPONSE_TOKENS, world_size=1)
    (shard,) = shard_batch(batch(advantage), 1, 40, halves=True, whole_groups=True)
    shard = replace(shard, keep_tokens=True)
    report = gradient_pass.run(shard)
    assert [len(records) for records in gradient_pass.tokens] == [len(sequences) for sequences in shard.microbatches]
    pairs = [
        pair for two in zip(shard.microbatches, gradient_pass.tokens, strict=True) for pair in zip(*two, strict=True)
    ]
    kept = MismatchSums.from_logprobs(
        np.concatenate([record.train_logprobs for _, record in pairs]),
        np.concatenate([sequence.rollout_logprobs for sequence, _ in pairs]),
        [len(sequence.response_ids) for sequence, _ in pairs],
    )
    assert kept.metrics() == pytest.approx(report.mismatch.metrics(), rel=1e-9)
    for sequence, record in pairs:
        assert len(record.advantages) == len(sequence.response_ids)
        if advantage == "grpo":
            assert set(record.advantages) <= {sequence.advantage}
    gradient_pass.run(replace(shard, keep_tokens=False))
    assert gradient_pass.tokens == []


@pytest.mark.parametrize("column", ["train", "rollout"])
def test_a_log_prob_that_is_no_number_is_told_with_prompt_and_response(column: str) -> None:
    sequences = [replace(sequence, sample=i % 3) for i, sequence in enumerate(batch("grpo"))]
    model = PolicyModel(deepcopy(tiny_model(torch.float32)), TEMPERATURE, chunk_bytes=4 * VOCABULARY * 7)
    if column == "train":
        sequences = sequences[7:8]
        with torch.no_grad():
            next(model.parameters()).fill_(torch.nan)
    else:
        sequences[7] = replace(sequences[7], rollout_logprobs=np.full_like(sequences[7].rollout_logprobs, np.nan))
    name = f"response 1 to prompt {sequences[7 % len(sequences)].group} of the step"
    gradient_pass = GradientPass(model, learner_config("token_mean", "grpo", "none"), MAX_RESPONSE_TOKENS, 1)
    (shard,) = shard_batch(sequences, 1, 40)
    with pytest.raises(NonFiniteLogprob, match=f"^{column} log-prob of {name}, token 0 is nan$"):
        gradient_pass.run(shard)


@pytest.mark.parametrize("loss", LOSSES)
def test_in_float16_the_loss_is_scaled_and_the_gradient_is_not(loss: str) -> None:
    """The scale is a power of two, so in float32 it changes no bit; what it does for float16 sums is beside this."""
    config = learner_config(loss, "grpo", "token_tis")
    half = config.model_copy(update={"dtype": "float16"})
    shards = shard_batch(batch("grpo"), 1, 40, halves=True)
    many = [replace(shard, num_tokens=3_000_000, num_sequences=1_000) for shard in shards]
    plain, reports = run(config, torch.float32, many)
    scaled, scaled_reports = run(half, torch.float32, many)
    assert torch.equal(plain, scaled)
    assert reports == scaled_reports
