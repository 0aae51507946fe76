"""Log-probs of chosen tokens and what else their distributions tell, in chunks: never the logits of all tokens."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

SAME_GRADIENT = 1e-5  # relative; further apart than this, gradients made beforehand are not those asked for


class TokenScores(NamedTuple):
    """What the learner knows of n response tokens."""

    logprobs: Tensor  # [n] float32 (float64 for a float64 model), differentiable
    entropy: Tensor  # [n] likewise, nats of the whole distribution at each position; detached
    square_sum: Tensor  # [n] likewise, sum of the squared probabilities of the whole distribution; detached


def score_tokens(  # noqa: PLR0913, PLR0917 - what a softmax needs, and its two bounds
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    temperature: float,
    chunk_tokens: int,
    expected: Tensor | None = None,
) -> TokenScores:
    """Log-probs of `targets` under softmax(hidden @ head.T / temperature), with entropy and square sum of that softmax.

    Args:
        hidden: [n, H] final hidden states, one for each token to be scored.
        head: [V, H] weight of the output head.
        targets: [n] token ids.
        temperature: the sampler's temperature.
        chunk_tokens: tokens whose [chunk, V] float32 logits may be held at once.
        expected: [n] the gradient that backward will bring for the log-probs, where that is known. The logits then
            serve for both passes, else backward computes them once more; so it does when another gradient comes. In
            float32 and float64 only.
    """
    foreseen = expected if torch.is_grad_enabled() else None
    return TokenScores(*_ChunkedScores.apply(hidden, head, targets, temperature, chunk_tokens, foreseen))  # type: ignore[no-untyped-call]


class _ChunkedScores(torch.autograd.Function):
    """d logp / d logits = onehot(target) - softmax, so backward needs nothing but the inputs and the normalisers."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - autograd passes its inputs by position
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        temperature: float,
        chunk_tokens: int,
        expected: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        logprobs, entropy, square_sum, normalisers = (
            hidden.new_empty(len(targets), dtype=_wide(hidden)) for _ in range(4)
        )
        foreseen = None
        if expected is not None and ctx.needs_input_grad[0] and hidden.dtype == head.dtype == _wide(hidden):
            expected = expected.to(hidden.dtype)
            foreseen = torch.empty_like(hidden), torch.zeros_like(head)
        step = max(1, chunk_tokens // 2)  # logits and their exponentials are held side by side
        for start in range(0, len(targets), step):
            part = slice(start, start + step)
            scored = _score(_logits(hidden[part], head, temperature), targets[part])
            logprobs[part], entropy[part], square_sum[part], normalisers[part] = scored.of_each
            if foreseen is not None and expected is not None:
                scale = expected[part] / temperature
                grad_logits = scored.exps.mul_((-scale / scored.total)[:, None])
                grad_logits.scatter_add_(-1, targets[part, None], scale[:, None])
                torch.mm(grad_logits, head, out=foreseen[0][part])
                foreseen[1].addmm_(grad_logits.T, hidden[part])
                del grad_logits
            del scored  # before the next logits come
        ctx.save_for_backward(hidden, head, targets, normalisers, expected)
        ctx.temperature, ctx.chunk_tokens, ctx.foreseen = temperature, chunk_tokens, foreseen
        ctx.mark_non_differentiable(entropy, square_sum)
        return logprobs, entropy, square_sum

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        hidden, head, targets, normalisers, expected = ctx.saved_tensors
        foreseen, ctx.foreseen = ctx.foreseen, None
        if foreseen is not None and torch.allclose(grads[0], expected, rtol=SAME_GRADIENT, atol=0.0):
            return *foreseen, None, None, None, None
        # By the vocabulary, not by tokens: each row of the head's gradient is then one sum over all tokens, made in one
        # go. Sums over chunks would need a [V, H] of float32 beside a gradient in half precision.
        grad_hidden = torch.zeros_like(hidden, dtype=_wide(hidden))
        grad_head = torch.empty_like(head)
        scale = grads[0] / ctx.temperature
        step = max(1, ctx.chunk_tokens * len(head) // max(1, len(targets)))
        for start in range(0, len(head), step):
            rows = head[start : start + step]
            probs = _logits(hidden, rows, ctx.temperature).sub_(normalisers[:, None]).exp_()
            grad_logits = probs.mul_(-scale[:, None])
            place = targets - start
            here = (place >= 0) & (place < len(rows))
            grad_logits.scatter_add_(-1, place.clamp(0, len(rows) - 1)[:, None], (here * scale)[:, None])
            narrow = grad_logits.to(hidden.dtype)
            _add_product(grad_hidden, narrow, rows)
            torch.mm(narrow.T, hidden, out=grad_head[start : start + step])
            del probs, grad_logits, narrow  # before the next logits come
        return grad_hidden.to(hidden.dtype), grad_head, None, None, None, None


class _Scored(NamedTuple):
    """A chunk's numbers, and what the gradient of its logits is made of."""

    of_each: tuple[Tensor, Tensor, Tensor, Tensor]  # [c] log-probs, entropies, square sums, normalisers
    exps: Tensor  # [c, V] of the logits less the largest of the row
    total: Tensor  # [c] their sums


def _score(logits: Tensor, targets: Tensor) -> _Scored:
    """Uses the logits [c, V] up."""
    largest = logits.amax(dim=-1)
    shifted = logits.sub_(largest[:, None])
    exps = shifted.exp()
    total = exps.sum(-1)
    log_total = total.log()
    logprobs = shifted.gather(-1, targets[:, None]).squeeze(-1) - log_total
    entropy = log_total - _row_products(exps, shifted) / total
    square_sum = _row_products(exps, exps) / total.square()
    return _Scored((logprobs, entropy, square_sum, largest + log_total), exps, total)


def _row_products(left: Tensor, right: Tensor) -> Tensor:
    """[c] sums of the products of two [c, V], which are never held themselves."""
    return (left.unsqueeze(-2) @ right.unsqueeze(-1)).flatten()


def _logits(hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
    logits = (hidden @ head.T).to(_wide(hidden))
    return logits if temperature == 1 else logits.div_(temperature)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to `total`, without a copy of its size where all are of one type."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


def _wide(tensor: Tensor) -> torch.dtype:
    """Sums and exponentials are in float32 at least."""
    return torch.promote_types(tensor.dtype, torch.float32)
