"""The loss aggregations against their formulas, over ragged sequences that are split into micro-batches."""

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actors.losses import policy_gradient_loss, token_divisors

MAX_RESPONSE_TOKENS = 16
# From METHOD: what the mean (or sum) over the tokens' terms is, sequence by sequence.
FORMULAS: dict[str, Callable[[list[Tensor]], Tensor]] = {
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


def step_loss(kind: str, logprobs: Sequence[Tensor], advantages: Sequence[float], owners: Sequence[int]) -> Tensor:
    """The loss of a whole step, computed by the micro-batch that owns each sequence and added up."""
    num_tokens, total = sum(map(len, logprobs)), torch.zeros((), dtype=torch.float64)
    for microbatch in set(owners):
        mine = [i for i, owner in enumerate(owners) if owner == microbatch]
        lengths = [len(logprobs[i]) for i in mine]
        divisors = token_divisors(kind, lengths, num_tokens, len(logprobs), MAX_RESPONSE_TOKENS)
        total = total + policy_gradient_loss(
            torch.cat([logprobs[i] for i in mine]), [advantages[i] for i in mine], lengths, divisors
        )
    return total


@pytest.mark.parametrize("kind", FORMULAS)
@given(ragged)
def test_the_microbatches_add_up_to_the_formula_and_its_gradient(
    kind: str, sequences: list[tuple[int, float, int]]
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
    logprobs = torch.zeros(0, requires_grad=True)
    loss = policy_gradient_loss(logprobs, [], [], token_divisors("token_mean", [], 12, 3, 4))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_response_without_tokens_adds_nothing(kind: str) -> None:
    logprobs = torch.tensor([-0.5, -1.0], requires_grad=True)
    alone = token_divisors(kind, [2], num_tokens=2, num_sequences=2, max_response_tokens=4)
    beside_empty = token_divisors(kind, [0, 2], num_tokens=2, num_sequences=2, max_response_tokens=4)
    expected = policy_gradient_loss(logprobs, [2.0], [2], alone)
    assert policy_gradient_loss(logprobs, [1.0, 2.0], [0, 2], beside_empty).item() == expected.item()


def test_the_loss_keeps_the_dtype_of_the_logprobs() -> None:
    for dtype in (torch.float32, torch.float64):
        assert policy_gradient_loss(torch.zeros(2, dtype=dtype), [1.0], [2], [2.0]).dtype == dtype
