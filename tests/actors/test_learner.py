"""What a real FSDP2 rank, alone over gloo, does to its weights: updates, perturbation, precision, publication."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from learner_ranks import EMBEDDING, HEAD, batch, compute, largest_difference, order, shard_of, weights_of
from torch import Tensor

from actors import gradient_pass
from actors.faults import Faults
from actors.learner import Learner
from actors.messages import UpdateReport

pytestmark = pytest.mark.slow


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def learner(build: Callable[..., Learner]) -> Learner:
    return build()


def norm(weights: dict[str, Tensor]) -> float:
    """L2 norm of all weights, the tied one counted once."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for name, tensor in weights.items() if name != HEAD))


def test_an_order_without_update_leaves_every_weight_and_drops_the_gradient(learner: Learner) -> None:
    before = weights_of(learner)
    learner.compute_gradients(shard_of(batch()))
    assert learner.apply(order(lr=1.0, update=False)) == UpdateReport()
    assert same(weights_of(learner), before)
    learner.apply(order(lr=1.0))
    assert same(weights_of(learner), before), "the gradient was still there"


def test_a_learning_rate_of_zero_leaves_every_weight(learner: Learner) -> None:
    before = weights_of(learner)
    learner.compute_gradients(shard_of(batch()))
    report = learner.apply(order(lr=0.0))
    assert same(weights_of(learner), before)
    assert report.norm_ratio == report.update_square_sum == 0.0
    assert math.sqrt(report.weight_square_sum) == pytest.approx(norm(before), rel=1e-6)


def test_the_norm_ratio_is_that_of_the_real_change_over_the_weights_before(learner: Learner) -> None:
    for lr in (1.0, 300.0):  # the second update starts from other weights
        before = weights_of(learner)
        learner.compute_gradients(shard_of(batch()))
        report = learner.apply(order(lr=lr, grad_scale=0.5))
        after = weights_of(learner)
        change = norm({name: after[name] - before[name] for name in before})
        assert change > 0
        assert report.norm_ratio == pytest.approx(change / norm(before), rel=1e-5)


def test_the_learning_rate_is_that_of_the_order_at_every_step(learner: Learner) -> None:
    before = weights_of(learner)
    learner.compute_gradients(shard_of(batch()))
    learner.apply(order(lr=1.0))
    after = weights_of(learner)
    assert not same(after, before)
    learner.compute_gradients(shard_of(batch()))
    learner.apply(order(lr=0.0))
    assert same(weights_of(learner), after)


def test_the_gradient_is_scaled_before_the_update(build: Callable[..., Learner]) -> None:
    moved = []
    for grad_scale in (1.0, 0.25):
        learner = build()
        before = weights_of(learner)[EMBEDDING]
        learner.compute_gradients(shard_of(batch()))
        learner.apply(order(lr=100.0, grad_scale=grad_scale))
        moved.append((weights_of(learner)[EMBEDDING] - before).norm().item())
    assert moved[0] > 0
    assert moved[1] == pytest.approx(0.25 * moved[0], rel=0.02)


def test_a_perturbation_is_taken_back_bit_for_bit(learner: Learner) -> None:
    before, scores = weights_of(learner), learner.score(batch())
    learner.perturb(seed=3)
    perturbed = weights_of(learner)
    assert not any(torch.equal(before[name], perturbed[name]) for name in before)
    assert largest_difference(learner.score(batch()), scores) > 0.1
    learner.restore()
    assert same(weights_of(learner), before)
    assert largest_difference(learner.score(batch()), scores) == 0


def test_scores_with_every_tensor_stale_are_those_before_the_perturbation(learner: Learner) -> None:
    scores = learner.score(batch())
    learner.perturb(seed=3)
    perturbed = weights_of(learner)
    assert largest_difference(learner.score(batch(), stale=learner.tensor_names()), scores) == 0
    assert same(weights_of(learner), perturbed), "scoring with stale tensors must leave the weights alone"


def test_the_two_names_of_a_tied_tensor_can_be_stale_one_without_the_other(learner: Learner) -> None:
    before = learner.score(batch())
    learner.perturb(seed=3)
    after = learner.score(batch())
    head, embedding, both = (learner.score(batch(), stale) for stale in ([HEAD], [EMBEDDING], [EMBEDDING, HEAD]))
    seen = [before, after, head, embedding, both]
    for i, one in enumerate(seen):
        assert all(largest_difference(one, other) > 0.01 for other in seen[i + 1 :])


def test_bfloat16_is_close_to_float32_and_keeps_float32_weights(build: Callable[..., Learner]) -> None:
    exact = build(dtype="float32")
    expected, gradient = exact.score(batch()), compute(exact, shard_of(batch()))
    learner = build(dtype="bfloat16")
    assert {tensor.dtype for tensor in weights_of(learner).values()} == {torch.float32}
    scores = learner.score(batch())
    assert {one.dtype for one in scores} == {np.dtype(np.float32)}
    assert 0 < largest_difference(scores, expected) < 0.5
    assert compute(learner, shard_of(batch())).grad_square_sum == pytest.approx(gradient.grad_square_sum, rel=0.1)


@pytest.mark.parametrize(("headroom", "close"), [(gradient_pass.FLOAT16_HEADROOM, True), (64, False)])
def test_the_loss_scale_keeps_a_large_steps_gradient_from_underflow_in_float16(
    build: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch, headroom: int, close: bool
) -> None:
    """A batch that is a small part of a step; with so much headroom there is no scale at all."""
    monkeypatch.setattr(gradient_pass, "FLOAT16_HEADROOM", headroom)
    shard = replace(shard_of(batch()), num_tokens=30_000_000, num_sequences=10_000)
    exact = compute(build(dtype="float32"), shard).grad_square_sum
    half = compute(build(dtype="float16"), shard).grad_square_sum
    assert (half == pytest.approx(exact, rel=0.02)) == close


def test_half_of_a_tied_tensor_can_be_stale_in_bfloat16_too(build: Callable[..., Learner]) -> None:
    learner = build(dtype="bfloat16")
    before = learner.score(batch())
    learner.perturb(seed=3)
    assert largest_difference(learner.score(batch(), [HEAD]), before) > 0.01
    assert largest_difference(learner.score(batch(), learner.tensor_names()), before) == 0


def test_names_that_a_publication_sends_hold_both_names_of_the_tied_tensor(learner: Learner) -> None:
    names = learner.tensor_names()
    assert EMBEDDING in names and HEAD in names
    assert len(names) == len(set(names))


class Publisher:
    """Stands in for the weight publisher; keeps the tensors it is to send."""

    def __init__(self, *args: Any) -> None:
        _, _, _, _, self.source, _ = args

    def close(self) -> None:
        pass


def test_a_quantised_publication_rounds_what_is_sent_and_not_the_weights(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    import actors.weight_publisher

    monkeypatch.setattr(actors.weight_publisher, "WeightPublisher", Publisher)
    before = weights_of(learner)
    sent = []
    for quantize in (None, "int8"):
        learner._spec = replace(learner._spec, quantize=quantize, wire_dtype="float32", faults=Faults())
        learner.connect("127.0.0.1", [])
        sent.append({name: tensor.clone() for name, tensor in learner._publisher.source})
    plain, rounded = sent
    assert same(plain, before) and same(weights_of(learner), before)
    changed = {name for name in plain if not torch.equal(plain[name], rounded[name])}
    assert changed == {name for name in plain if name.endswith("_proj.weight")}
    assert changed
