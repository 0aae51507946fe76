"""The gradient of real FSDP2 ranks: that of the plain model, and the same from two ranks as from one."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from learner_ranks import (
    MODEL,
    SPEC,
    batch,
    compute,
    largest_difference,
    order,
    run_rank,
    run_two_ranks,
    shard_of,
)
from plain_reference import plain_gradient
from transformers import AutoModelForCausalLM

from actors.config import AdvantageKind, LearnerConfig
from actors.gradient_noise import HalfSums
from actors.learner import Learner
from actors.lr_policies import ConstantConfig
from actors.messages import GradientReport, LearnerShard, TrainSequence, UpdateReport
from actors.scheduler import Scheduler
from actors.statistics import MismatchSums
from orchestrator.batching import shard_batch

pytestmark = pytest.mark.slow

ADVANTAGES: tuple[AdvantageKind, ...] = ("grpo", "optimal_token_baseline")


@pytest.fixture
def learner(build: Callable[..., Learner]) -> Learner:
    return build()


def sharded(ranks: int, tokens_per_microbatch: int) -> list[LearnerShard]:
    """The batch in halves, all responses to a prompt on one rank."""
    return shard_batch(batch(), ranks, tokens_per_microbatch, halves=True, whole_groups=True)


def measured(config: LearnerConfig, reports: Sequence[GradientReport]) -> dict[str, float]:
    """What a scheduler logs of a step with the batch's five prompts."""
    return Scheduler(ConstantConfig().build(total_steps=None), config).decide(0, reports, {}, num_prompts=5).metrics


def plain(advantage: AdvantageKind, sequences: list[TrainSequence]) -> tuple[torch.Tensor, float]:
    """Gradient [all parameters] and loss of these sequences alone on the unsharded model."""
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    config = SPEC.config.model_copy(update={"advantage": advantage})
    gradients, loss = plain_gradient(model, sequences, config, SPEC.temperature, SPEC.max_response_tokens)
    return torch.cat([one.flatten() for one in gradients]), loss


@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_the_gradient_is_that_of_the_plain_model(build: Callable[..., Learner], advantage: AdvantageKind) -> None:
    learner = build(advantage=advantage)
    (shard,) = sharded(1, tokens_per_microbatch=40)
    report = learner.compute_gradients(shard)
    gradient = torch.cat([parameter.grad.full_tensor().flatten() for parameter in learner._model.parameters()])
    exact, loss = plain(advantage, batch())
    assert float((gradient - exact).norm() / exact.norm()) < 1e-5
    assert report.grad_square_sum == pytest.approx(float(exact.double().square().sum()), rel=1e-5)
    assert report.loss == pytest.approx(loss, rel=1e-5)
    assert report.nonfinite == 0


@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_signal_and_noise_are_those_of_the_plain_model_s_halves(
    build: Callable[..., Learner], advantage: AdvantageKind
) -> None:
    learner = build(advantage=advantage)
    metrics = measured(learner._spec.config, [compute(learner, *sharded(1, tokens_per_microbatch=40))])
    one, two = (plain(advantage, [each for each in batch() if each.group % 2 == half])[0] for half in range(2))
    assert metrics["gradient/signal"] == pytest.approx(float(one @ two), rel=1e-4)
    assert metrics["gradient/noise"] == pytest.approx(3 * 2 / 5 * float((one - two).square().sum()), rel=1e-4)


def test_the_mismatch_is_that_of_the_scored_logprobs(learner: Learner) -> None:
    sequences = batch()
    report = compute(learner, shard_of(sequences[:3], sequences[3:]))
    scored = np.concatenate(learner.score(sequences))
    sampled = np.concatenate([sequence.rollout_logprobs for sequence in sequences])
    expected = MismatchSums.from_logprobs(scored, sampled, [len(sequence.response_ids) for sequence in sequences])
    assert report.mismatch.metrics() == pytest.approx(expected.metrics(), rel=1e-4)
    assert report.mismatch.tokens == 43


def test_a_shard_of_empty_microbatches_reports_nothing_and_has_no_gradient(learner: Learner) -> None:
    assert compute(learner, shard_of([], [])) == GradientReport()


def test_a_gradient_starts_from_nothing_at_every_step(learner: Learner) -> None:
    (shard,) = sharded(1, tokens_per_microbatch=40)
    assert compute(learner, shard) == compute(learner, shard)


def test_halves_make_no_difference_to_the_gradient(learner: Learner) -> None:
    with_halves = compute(learner, *sharded(1, tokens_per_microbatch=60))
    without = compute(learner, shard_of(*sharded(1, tokens_per_microbatch=60)[0].microbatches))
    assert with_halves.grad_square_sum == without.grad_square_sum
    assert without.halves == HalfSums()
    assert with_halves.halves.first_tokens == sum(len(one.response_ids) for one in batch() if one.group % 2 == 0)


@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_two_ranks_and_any_microbatches_measure_and_update_as_one_rank_does(
    build: Callable[..., Learner], advantage: AdvantageKind
) -> None:
    step = order(lr=100.0, grad_scale=0.5)
    config = SPEC.config.model_copy(update={"advantage": advantage})
    (alone,), update, scores = run_rank(build(advantage=advantage), sharded(1, 10_000), step, batch())
    dist.destroy_process_group()
    (full,) = sharded(1, 30)
    idle = replace(full, microbatches=((),) * len(full.microbatches))  # no data, but a part of the weights
    shards = [[full, idle], *(sharded(2, budget) for budget in (10_000, 1, 30))]
    first, second = run_two_ranks(config, shards, step, batch())
    expected = measured(config, [alone])
    assert expected["gradient/norm"] > 0 and expected["gradient/noise"] > 0
    assert [report.mismatch.sequences > 0 for report in second[0]] == [False, True, True, True]
    for reports in zip(first[0], second[0], strict=True):
        metrics = measured(config, reports)
        for key in ("gradient/signal", "gradient/noise", "gradient/norm", "policy/loss", "policy/entropy"):
            assert metrics[key] == pytest.approx(expected[key], rel=1e-5), key
        assert metrics == pytest.approx(expected, rel=1e-4)
    assert UpdateReport().merge(first[1], second[1]).norm_ratio == pytest.approx(update.norm_ratio, rel=1e-5)
    for _, _, of_rank in (first, second):
        assert largest_difference(of_rank, scores) < 1e-4
