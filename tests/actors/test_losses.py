"""The loss aggregations and the clipped surrogate against their formulas, token by token."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actors.config import LossKind
from actors.losses import ClipRange, policy_gradient_loss, token_divisors

MAX_RESPONSE_TOKENS = 16
CLIP = ClipRange(low=0.2, high=0.28)
# From METHOD: what the mean (or sum) over the tokens' terms is, sequence by sequence.
FORMULAS: dict[LossKind, Callable[[list[Tensor]], Tensor]] = {
    "token_mean": lambda terms: torch.cat(terms).mean(),
    "sequence_mean": lambda terms: torch.stack([term.mean() for term in terms]).mean(),
    "constant": lambda terms: torch.cat(terms).sum() / (len(terms) * MAX_RESPONSE_TOKENS),
}
ragged = st.lists(st.tuples(st.integers(1, 9), st.floats(-3, 3), st.integers(0, 2)), min_size=1, max_size=8)


def leaves_of(lengths: Sequence[int]) -> list[Tensor]:
    """Log-probs [T] of each sequence, ready to take gradients."""
    generator = torch.Generator().manual_seed(sum(lengths))
    logprobs = [-torch.rand(length, generator=generator, dtype=torch.float64) for length in lengths]
    return [one.requires_grad_() for one in logprobs]


def step_loss(kind: LossKind, logprobs: Sequence[Tensor], advantages: Sequence[float], owners: Sequence[int]) -> Tensor:
    """The loss of a whole step, computed by the micro-batch that owns each sequence and added up."""
    num_tokens, total = sum(map(len, logprobs)), torch.zeros((), dtype=torch.float64)
    for microbatch in set(owners):
        mine = [i for i, owner in enumerate(owners) if owner == microbatch]
        lengths = [len(logprobs[i]) for i in mine]
        divisors = token_divisors(kind, lengths, num_tokens, len(logprobs), MAX_RESPONSE_TOKENS)
        total = total + on_policy_loss([logprobs[i] for i in mine], [advantages[i] for i in mine], divisors)
    return total


def on_policy_loss(logprobs: Sequence[Tensor], advantages: Sequence[float], divisors: Sequence[float]) -> Tensor:
    """The loss of some sequences under the policy that sampled them."""
    rows = zip(logprobs, advantages, divisors, strict=True)
    columns = [(one, torch.full_like(one, a), torch.full_like(one, 1 / divisor)) for one, a, divisor in rows]
    flat, values, weights = (torch.cat(column) for column in zip(*columns, strict=True))
    return policy_gradient_loss(flat, flat.detach(), values, weights, CLIP)


def surrogate(ratio: float, advantage: float, weight: float = 1.0, clip: ClipRange = CLIP) -> tuple[float, float]:
    """Loss of a single token and its derivative by the log-prob."""
    logprob = torch.tensor([-0.7], dtype=torch.float64, requires_grad=True)
    old = logprob.detach() - math.log(ratio)
    columns = (torch.tensor([value], dtype=torch.float64) for value in (advantage, weight))
    loss = policy_gradient_loss(logprob, old, *columns, clip)
    loss.backward()
    return loss.item(), logprob.grad.item()


@pytest.mark.parametrize("kind", FORMULAS)
@given(ragged)
def test_the_microbatches_add_up_to_the_formula_and_its_gradient(
    kind: LossKind, sequences: list[tuple[int, float, int]]
) -> None:
    lengths, advantages, owners = zip(*sequences, strict=True)
    leaves = leaves_of(lengths)
    ratio_is_one = [torch.full((length,), -advantage, dtype=torch.float64) for length, advantage, _ in sequences]
    loss = step_loss(kind, leaves, advantages, owners)
    assert loss.item() == pytest.approx(FORMULAS[kind](ratio_is_one).item(), abs=1e-12)
    expected = FORMULAS[kind]([-a * logprobs for a, logprobs in zip(advantages, leaves, strict=True)])
    torch.testing.assert_close(
        torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), rtol=1e-12, atol=1e-12
    )


def test_a_microbatch_without_sequences_has_a_loss_of_zero_that_can_be_differentiated() -> None:
    nothing = torch.zeros(0, requires_grad=True)
    assert token_divisors("token_mean", [], 12, 3, 4) == []
    loss = policy_gradient_loss(nothing, nothing.detach(), torch.zeros(0), torch.zeros(0), CLIP)
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_response_without_tokens_adds_nothing(kind: LossKind) -> None:
    nothing, logprobs = torch.zeros(0), torch.tensor([-0.5, -1.0], requires_grad=True)
    alone = token_divisors(kind, [2], num_tokens=2, num_sequences=2, max_response_tokens=4)
    beside_empty = token_divisors(kind, [0, 2], num_tokens=2, num_sequences=2, max_response_tokens=4)
    expected = on_policy_loss([logprobs], [2.0], alone)
    assert on_policy_loss([nothing, logprobs], [1.0, 2.0], beside_empty).item() == expected.item()


def test_the_loss_keeps_the_dtype_of_the_logprobs() -> None:
    for dtype in (torch.float32, torch.float64):
        assert on_policy_loss([torch.zeros(2, dtype=dtype)], [1.0], [2.0]).dtype == dtype


@given(ratio=st.floats(0.05, 4), advantage=st.floats(-3, 3), weight=st.floats(0, 2))
def test_the_surrogate_is_the_pessimistic_one_of_the_ratio_and_the_clipped_ratio(
    ratio: float, advantage: float, weight: float
) -> None:
    clipped = min(1.28, max(0.8, ratio))
    loss, _ = surrogate(ratio, advantage, weight)
    assert loss == pytest.approx(-weight * min(ratio * advantage, clipped * advantage), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.5, 2.0, -2.56, 0.0),  # good and already more likely by more than the high limit: no reason to go on
        (0.5, -2.0, 1.6, 0.0),  # bad and already less likely by more than the low limit
        (1.5, -2.0, 3.0, 3.0),  # bad but more likely than before: never clipped
        (0.5, 2.0, -1.0, -1.0),  # good but less likely than before: likewise
        (1.25, 2.0, -2.5, -2.5),  # beyond the low limit's distance, within the high one's
        (0.79, -2.0, 1.6, 0.0),  # beyond the low limit, at a distance that the high one would allow
    ],
)
def test_low_and_high_are_clipped_apart_and_a_clipped_token_has_no_gradient(
    ratio: float, advantage: float, loss: float, gradient: float
) -> None:
    assert surrogate(ratio, advantage) == pytest.approx((loss, gradient))


def test_each_limit_moves_its_own_side_only() -> None:
    wide_low, wide_high = ClipRange(low=0.6, high=0.28), ClipRange(low=0.2, high=0.6)
    assert surrogate(0.5, -2.0, clip=wide_low) == pytest.approx((1.0, 1.0))
    assert surrogate(0.5, -2.0, clip=wide_high) == pytest.approx((1.6, 0.0))
    assert surrogate(1.5, 2.0, clip=wide_high) == pytest.approx((-3.0, -3.0))
    assert surrogate(1.5, 2.0, clip=wide_low) == pytest.approx((-2.56, 0.0))


def test_the_weight_multiplies_loss_and_gradient_but_not_the_clipping() -> None:
    assert surrogate(1.0, 2.0, weight=0.25) == pytest.approx((-0.5, -0.5))
    assert surrogate(1.5, 2.0, weight=10.0) == pytest.approx((-25.6, 0.0))
    assert surrogate(1.5, -2.0, weight=0.0) == (0.0, 0.0)
