"""Log-probs of chosen tokens and what else their distributions tell, in chunks: never the logits of all tokens."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class TokenScores(NamedTuple):
    """What the learner knows of n response tokens."""

    logprobs: Tensor  # [n] float32 (float64 for a float64 model), differentiable
    entropy: Tensor  # [n] likewise, nats of the whole distribution at each position; detached
    square_sum: Tensor  # [n] likewise, sum of the squared probabilities of the whole distribution; detached


def score_tokens(hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, chunk_tokens: int) -> TokenScores:
    """Log-probs of `targets` under softmax(hidden @ head.T / temperature), with entropy and square sum of that softmax.

    Args:
        hidden: [n, H] final hidden states, one for each token to be scored.
        head: [V, H] weight of the output head.
        targets: [n] token ids.
        temperature: the sampler's temperature.
        chunk_tokens: tokens whose [chunk, V] float32 logits are held at once. Backward computes them once more.
    """
    return TokenScores(*_ChunkedScores.apply(hidden, head, targets, temperature, chunk_tokens))  # type: ignore[no-untyped-call]


class _ChunkedScores(torch.autograd.Function):
    """d logp / d logits = onehot(target) - softmax, so backward needs nothing but the inputs and the normalisers."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - autograd passes its inputs by position
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, chunk_tokens: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        logprobs, entropy, square_sum, normalisers = (
            hidden.new_empty(len(targets), dtype=_wide(hidden)) for _ in range(4)
        )
        for start in range(0, len(targets), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            logits = _logits(hidden[part], head, temperature)
            normalisers[part] = torch.logsumexp(logits, dim=-1)
            logprobs[part] = logits.gather(-1, targets[part, None]).squeeze(-1) - normalisers[part]
            shifted = logits.sub_(normalisers[part, None])  # log-softmax, in place
            probs = shifted.exp()
            square_sum[part] = torch.linalg.vecdot(probs, probs)
            entropy[part] = -probs.mul_(shifted).sum(-1)
        ctx.save_for_backward(hidden, head, targets, normalisers)
        ctx.temperature, ctx.chunk_tokens = temperature, chunk_tokens
        ctx.mark_non_differentiable(entropy, square_sum)
        return logprobs, entropy, square_sum

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden, head, targets, normalisers = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros_like(head, dtype=_wide(head))
        for start in range(0, len(targets), ctx.chunk_tokens):
            part = slice(start, start + ctx.chunk_tokens)
            grad_logits = _logits(hidden[part], head, ctx.temperature).sub_(normalisers[part, None]).exp_().neg_()
            grad_logits.scatter_add_(-1, targets[part, None], torch.ones_like(targets[part, None], dtype=_wide(head)))
            grad_logits.mul_((grads[0][part] / ctx.temperature)[:, None])
            narrow = grad_logits.to(hidden.dtype)
            grad_hidden[part] = narrow @ head
            grad_head.add_(narrow.T @ hidden[part])
        return grad_hidden, grad_head.to(head.dtype), None, None, None


def _logits(hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
    return (hidden @ head.T).to(_wide(hidden)).div_(temperature)


def _wide(tensor: Tensor) -> torch.dtype:
    """Sums and exponentials are in float32 at least."""
    return torch.promote_types(tensor.dtype, torch.float32)
