"""Chunked log-probs, entropies and square sums against torch's own softmax and autograd in float64."""

from typing import Any

import pytest
import torch
from product_count import ProductCount
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from actors.token_scores import Foresight, TokenScores, score_tokens

NUM_TOKENS, WIDTH, VOCABULARY = 7, 5, 11


def inputs(num_tokens: int = NUM_TOKENS, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Leaves [n, H] and [V, H] that want gradients, and targets [n]."""
    generator = torch.Generator().manual_seed(num_tokens)
    hidden = torch.randn(num_tokens, WIDTH, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(VOCABULARY, WIDTH, generator=generator).to(dtype).requires_grad_()
    return hidden, head, torch.randint(0, VOCABULARY, (num_tokens,), generator=generator)


def reference(hidden: Tensor, head: Tensor, targets: Tensor, temperature: float) -> TokenScores:
    """The same with all logits at once, in float64, left to autograd."""
    log_softmax = torch.log_softmax(hidden.double() @ head.double().T / temperature, dim=-1)
    logprobs = log_softmax.gather(-1, targets[:, None]).squeeze(-1)
    entropy = torch.distributions.Categorical(logits=log_softmax).entropy()
    return TokenScores(logprobs, entropy, log_softmax.exp().square().sum(-1))


def gradients(scores: TokenScores, weights: Tensor, *leaves: Tensor) -> list[Tensor]:
    """Gradients of a weighted sum of the log-probs."""
    total = (scores.logprobs * weights.to(scores.logprobs.dtype)).sum()
    return [grad.double() for grad in torch.autograd.grad(total, leaves)]


def known(gradient: Tensor) -> Foresight:
    """Foresight of a gradient [n] that waits for nothing."""
    return lambda logprobs, place: gradient[place]


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any result of an operation had."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("chunk_tokens", [1, 3, NUM_TOKENS, NUM_TOKENS + 5])
def test_logprobs_entropies_and_square_sums_are_those_of_the_softmax(chunk_tokens: int, temperature: float) -> None:
    hidden, head, targets = inputs()
    scores = score_tokens(hidden, head, targets, temperature, chunk_tokens)
    expected = reference(hidden, head, targets, temperature)
    torch.testing.assert_close(scores.logprobs.double(), expected.logprobs, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.entropy.double(), expected.entropy, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.square_sum.double(), expected.square_sum, rtol=1e-5, atol=0)


@pytest.mark.parametrize("chunk_tokens", [1, 3, NUM_TOKENS + 5])
def test_the_square_sum_is_the_difference_of_two_log_sum_exps(chunk_tokens: int) -> None:
    hidden, head, targets = inputs(dtype=torch.float64)
    logits = hidden @ head.T / 0.6
    expected = torch.exp(torch.logsumexp(2 * logits, -1) - 2 * torch.logsumexp(logits, -1))
    scores = score_tokens(hidden, head, targets, 0.6, chunk_tokens)
    torch.testing.assert_close(scores.square_sum, expected, rtol=1e-12, atol=0)


def test_the_square_sum_lies_between_that_of_a_uniform_and_of_a_certain_choice() -> None:
    uniform = score_tokens(torch.zeros(1, WIDTH), torch.ones(8, WIDTH), torch.tensor([3]), 1.0, 1)
    assert uniform.square_sum.item() == pytest.approx(1 / 8)
    certain = score_tokens(torch.tensor([[90.0]]), torch.tensor([[1.0], [-1.0]]), torch.tensor([1]), 1.0, 1)
    assert certain.square_sum.item() == 1.0


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("chunk_tokens", [1, 3, NUM_TOKENS, NUM_TOKENS + 5])
def test_gradients_of_hidden_states_and_head_are_those_of_autograd(chunk_tokens: int, temperature: float) -> None:
    hidden, head, targets = inputs()
    weights = torch.linspace(-1.0, 2.0, NUM_TOKENS)
    ours = gradients(score_tokens(hidden, head, targets, temperature, chunk_tokens), weights, hidden, head)
    expected = gradients(reference(hidden, head, targets, temperature), weights, hidden, head)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("chunk_tokens", [1, 3, NUM_TOKENS + 5])
@pytest.mark.parametrize("foreseen", [1.0, 2.0], ids=["foreseen", "another-gradient-comes"])
def test_a_gradient_that_was_foreseen_is_the_same_and_one_that_was_not_is_computed(
    foreseen: float, chunk_tokens: int, temperature: float
) -> None:
    hidden, head, targets = inputs()
    weights = torch.linspace(-1.0, 2.0, NUM_TOKENS)
    scores = score_tokens(hidden, head, targets, temperature, chunk_tokens, known(foreseen * weights))
    expected = reference(hidden, head, targets, temperature)
    torch.testing.assert_close(scores.logprobs.double(), expected.logprobs, rtol=0, atol=1e-5)
    ours, theirs = gradients(scores, weights, hidden, head), gradients(expected, weights, hidden, head)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_foreseen_gradient_spares_the_second_look_at_the_logits() -> None:
    hidden, head, targets = inputs()
    weights = torch.linspace(-1.0, 2.0, NUM_TOKENS)
    scores = score_tokens(hidden, head, targets, 1.0, 3, known(weights))
    with ProductCount() as count:
        gradients(scores, weights, hidden, head)
    assert count.products == 0


@pytest.mark.parametrize("chunk_tokens", [1, 3, 8, NUM_TOKENS + 5])
def test_a_gradient_that_hangs_on_each_tokens_log_prob_is_foreseen(chunk_tokens: int) -> None:
    hidden, head, targets = inputs()
    weights = torch.linspace(-1.0, 2.0, NUM_TOKENS)
    asked: list[int] = []

    def foresight(logprobs: Tensor, place: slice) -> Tensor:
        asked.extend(range(place.start, place.stop))
        return weights[place] * logprobs.exp()

    scores = score_tokens(hidden, head, targets, 0.6, chunk_tokens, foresight)
    assert asked == list(range(NUM_TOKENS))
    with ProductCount() as count:
        ours = gradients(scores, weights * scores.logprobs.detach().exp(), hidden, head)
    assert count.products == 0
    expected = reference(hidden, head, targets, 0.6)
    theirs = gradients(expected, weights * expected.logprobs.detach().exp(), hidden, head)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_logits_that_all_fit_into_a_chunk_serve_for_both_passes() -> None:
    hidden, head, targets = inputs()
    scores = score_tokens(hidden, head, targets, 1.0, 2 * NUM_TOKENS)
    with ProductCount() as count:
        gradients(scores, torch.ones(NUM_TOKENS), hidden, head)
    assert count.products == 2


@pytest.mark.parametrize("foreseen", [False, True])
def test_a_second_backward_pass_gives_the_same_gradients(foreseen: bool) -> None:
    hidden, head, targets = inputs()
    weights = torch.linspace(-1.0, 2.0, NUM_TOKENS)
    foresight = known(weights) if foreseen else None
    total = (score_tokens(hidden, head, targets, 0.6, 2 * NUM_TOKENS, foresight).logprobs * weights).sum()
    first = torch.autograd.grad(total, (hidden, head), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(total, (hidden, head)), first, rtol=1e-5, atol=1e-5)


def test_nothing_is_foreseen_where_no_gradient_is_wanted_or_sums_would_be_narrow() -> None:
    hidden, head, targets = inputs()
    with torch.no_grad(), ProductCount() as count:
        score_tokens(hidden, head, targets, 1.0, 2 * NUM_TOKENS, known(torch.ones(NUM_TOKENS)))
    assert count.products == 1
    hidden, head, targets = inputs(dtype=torch.bfloat16)
    scores = score_tokens(hidden, head, targets, 1.0, 3, known(torch.ones(NUM_TOKENS)))
    scores.logprobs.sum().backward()
    assert head.grad is not None and head.grad.dtype == torch.bfloat16


def test_bfloat16_keeps_float32_logprobs_and_returns_gradients_in_its_own_dtype() -> None:
    hidden, head, targets = inputs(dtype=torch.bfloat16)
    scores = score_tokens(hidden, head, targets, 1.0, 3)
    assert scores.logprobs.dtype == scores.entropy.dtype == scores.square_sum.dtype == torch.float32
    torch.testing.assert_close(
        scores.logprobs.double(), reference(hidden, head, targets, 1.0).logprobs, rtol=0, atol=0.05
    )
    scores.logprobs.sum().backward()
    assert hidden.grad is not None and head.grad is not None
    assert hidden.grad.dtype == head.grad.dtype == torch.bfloat16


def test_entropy_and_square_sum_take_no_part_in_the_gradient() -> None:
    scores = score_tokens(*inputs(), temperature=1.0, chunk_tokens=3)
    assert scores.logprobs.requires_grad
    assert not scores.entropy.requires_grad and not scores.square_sum.requires_grad


def test_no_tokens_give_empty_scores_and_a_zero_gradient_of_the_head() -> None:
    hidden, head, targets = inputs(num_tokens=0)
    scores = score_tokens(hidden, head, targets, 1.0, 3)
    assert scores.logprobs.shape == scores.entropy.shape == scores.square_sum.shape == (0,)
    scores.logprobs.sum().backward()
    assert head.grad is not None and not head.grad.any()


def test_logits_far_from_zero_neither_overflow_nor_lose_the_target() -> None:
    hidden = torch.tensor([[1000.0], [-1000.0]])
    head = torch.tensor([[1.0], [0.0], [-1.0]])
    scores = score_tokens(hidden, head, torch.tensor([0, 0]), 1.0, 2)
    assert scores.logprobs.tolist() == [0.0, -2000.0]
    assert scores.entropy.tolist() == [0.0, 0.0]
    assert scores.square_sum.tolist() == [1.0, 1.0]


def test_forward_and_backward_never_hold_more_logits_than_a_chunk() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(64, 2, generator=generator).requires_grad_()
    head = torch.randn(50, 2, generator=generator).requires_grad_()
    with LargestTensor() as largest:
        score_tokens(hidden, head, torch.zeros(64, dtype=torch.long), 1.0, 4).logprobs.sum().backward()
    assert 3 * 50 < largest.numel <= 4 * 50


@pytest.mark.parametrize("num_tokens", [26, 78])
def test_over_a_vocabulary_of_152k_more_tokens_take_no_larger_piece_of_logits(num_tokens: int) -> None:
    vocabulary, chunk_tokens = 151_936, 13  # 8 MiB of float32
    hidden = torch.randn(num_tokens, 4).requires_grad_()
    head = torch.randn(vocabulary, 4).requires_grad_()
    with LargestTensor() as largest:
        score_tokens(
            hidden, head, torch.zeros(num_tokens, dtype=torch.long), 1.0, chunk_tokens
        ).logprobs.sum().backward()
    assert (chunk_tokens - 1) * vocabulary < largest.numel <= chunk_tokens * vocabulary


@pytest.mark.parametrize("chunk_tokens", [1, 1000])
def test_a_gradient_of_the_gradient_is_refused(chunk_tokens: int) -> None:
    hidden, head, targets = inputs()
    logprobs = score_tokens(hidden, head, targets, 1.0, chunk_tokens).logprobs
    (gradient,) = torch.autograd.grad(logprobs.square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
