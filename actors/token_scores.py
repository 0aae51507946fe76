"""Log-probs of chosen tokens and what else their distributions tell, in chunks: never the logits of all tokens."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SAME_GRADIENT = 1e-5  # relative; further apart than this, gradients made beforehand are not those asked for
# The gradient [c] that backward will bring for some log-probs [c], given these and where they stand among all.
Foresight = Callable[[Tensor, slice], Tensor]


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
    foresight: Foresight | None = None,
) -> TokenScores:
    """Log-probs of `targets` under softmax(hidden @ head.T / temperature), with entropy and square sum of that softmax.

    Args:
        hidden: [n, H] final hidden states, one for each token to be scored.
        head: [V, H] weight of the output head.
        targets: [n] token ids.
        temperature: the sampler's temperature.
        chunk_tokens: tokens whose [chunk, V] float32 logits may be held at once.
        foresight: tells the gradient that backward will bring, where none waits for the log-probs of other tokens;
            asked once about every token, a few at a time. The logits then serve for both passes, in float32 and
            float64. Without it, or when another gradient comes, backward computes them once more; without it not
            where all of them fit into one chunk.
    """
    if not torch.is_grad_enabled():  # a Function is told that gradients are wanted all the same
        hidden, head = hidden.detach(), head.detach()
    return TokenScores(*_ChunkedScores.apply(hidden, head, targets, temperature, chunk_tokens, foresight))  # type: ignore[no-untyped-call]


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
        foresight: Foresight | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = _wide(hidden)
        logprobs, entropy, square_sum, normalisers = (hidden.new_empty(len(targets), dtype=wide) for _ in range(4))
        chunk = _Chunk(hidden, head, chunk_tokens)
        expected, foreseen, kept = None, None, None
        factors: Foresight | None = None
        if foresight is not None and ctx.needs_input_grad[0] and hidden.dtype == head.dtype == wide:
            expected = torch.empty_like(logprobs)
            foreseen = torch.empty_like(hidden), torch.zeros_like(head)
            factors = _remembered(foresight, expected, -1 / temperature)
        elif any(ctx.needs_input_grad) and len(targets) <= chunk.num_tokens:
            factors = _ones
        for start in range(0, len(targets), chunk.num_tokens):
            part = slice(start, start + chunk.num_tokens)
            logits = chunk.logits(hidden[part], head, temperature)
            scored = chunk.score(logits, targets[part], factors, start)
            logprobs[part], entropy[part], square_sum[part], normalisers[part] = scored
            if foreseen is not None and expected is not None:
                logits.scatter_add_(-1, targets[part, None], expected[part, None] / temperature)
                torch.mm(logits, head, out=foreseen[0][part])
                foreseen[1].addmm_(logits.T, hidden[part])
            elif factors is not None:
                kept = logits
        ctx.save_for_backward(hidden, head, targets, normalisers, expected)
        ctx.temperature, ctx.chunk_tokens, ctx.foreseen, ctx.kept = temperature, chunk_tokens, foreseen, kept
        ctx.mark_non_differentiable(entropy, square_sum)
        return logprobs, entropy, square_sum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        hidden, head, targets, normalisers, expected = ctx.saved_tensors
        foreseen, kept = ctx.foreseen, ctx.kept
        ctx.foreseen = ctx.kept = None  # a second time there is nothing beforehand
        if foreseen is not None and torch.allclose(grads[0], expected, rtol=SAME_GRADIENT, atol=0.0):
            return *foreseen, None, None, None, None
        scale = grads[0] / ctx.temperature
        if kept is not None:
            grad_logits = kept.mul_(-scale[:, None]).scatter_add_(-1, targets[:, None], scale[:, None])
            narrow = grad_logits.to(hidden.dtype)
            return narrow @ head, narrow.T @ hidden, None, None, None, None
        # By the vocabulary, not by tokens: each row of the head's gradient is then one sum over all tokens, made in one
        # go. Sums over chunks would need a [V, H] of float32 beside a gradient in half precision.
        grad_hidden = torch.zeros_like(hidden, dtype=_wide(hidden))
        grad_head = torch.empty_like(head)
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


class _Chunk:
    """Room for the logits of some tokens, and for the exponentials of a few of them.

    It serves for one piece of the tokens after the other: to get new memory takes longer than what is done in it.
    """

    def __init__(self, hidden: Tensor, head: Tensor, chunk_tokens: int) -> None:
        wide = _wide(hidden)
        # In half precision the logits come in that first, which is as much again.
        self.num_tokens = max(1, chunk_tokens * 3 // 4 if hidden.dtype == wide else chunk_tokens // 2)
        rows = min(self.num_tokens, len(hidden))
        self._logits = hidden.new_empty(rows, len(head), dtype=wide)
        self._exps = hidden.new_empty(min(rows, max(1, chunk_tokens // 4)), len(head), dtype=wide)

    def logits(self, hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
        """[c, V] of `num_tokens` hidden states [c, H] at most; gone with the next ones."""
        logits = self._logits[: len(hidden)]
        if hidden.dtype == logits.dtype:
            torch.mm(hidden, head.T, out=logits)
        else:
            logits.copy_(hidden @ head.T)
        return logits if temperature == 1 else logits.div_(temperature)

    def score(self, logits: Tensor, targets: Tensor, factors: Foresight | None, first: int) -> tuple[Tensor, ...]:
        """[c] log-probs, entropies, square sums and normalisers.

        The logits [c, V] are used up: afterwards they are the probabilities times `factors`, where there are any, of
        log-probs of which the chunk's stand at `first` and after it.
        """
        pieces = []
        for start in range(0, len(logits), len(self._exps)):
            part = slice(start, start + len(self._exps))
            shifted = logits[part]
            largest = shifted.amax(dim=-1)
            shifted.sub_(largest[:, None])
            exps = torch.exp(shifted, out=self._exps[: len(shifted)])
            total = exps.sum(-1)
            log_total = total.log()
            logprobs = shifted.gather(-1, targets[part, None]).squeeze(-1) - log_total
            square_sum = (torch.linalg.vector_norm(exps, dim=-1) / total).square_()
            entropy = log_total - shifted.mul_(exps).sum(-1) / total
            pieces.append((logprobs, entropy, square_sum, largest + log_total))
            if factors is not None:
                factor = factors(logprobs, slice(first + start, first + start + len(shifted)))
                torch.mul(exps, (factor / total)[:, None], out=shifted)
        return tuple(map(torch.cat, zip(*pieces, strict=True)))


def _remembered(foresight: Foresight, expected: Tensor, factor: float) -> Foresight:
    """What is foreseen times `factor`; it is left in `expected` [n] as it is."""

    def tell(logprobs: Tensor, place: slice) -> Tensor:
        expected[place] = foresight(logprobs, place)
        return expected[place] * factor

    return tell


def _ones(logprobs: Tensor, place: slice) -> Tensor:
    return torch.ones_like(logprobs)


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
