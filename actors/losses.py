"""Policy-gradient loss of a micro-batch, divided so that the micro-batches and ranks of a step add up to the whole."""

from collections.abc import Sequence

import torch
from torch import Tensor

from actors.config import LossKind


def token_divisors(
    kind: LossKind, lengths: Sequence[int], num_tokens: int, num_sequences: int, max_response_tokens: int
) -> list[float]:
    """What the loss of each sequence's tokens is divided by.

    Args:
        kind: `token_mean`: all response tokens of the step weigh the same. `sequence_mean`: mean over a sequence's
            tokens, then over sequences. `constant`: sum over the number of sequences times `max_response_tokens`.
        lengths: response tokens of each sequence of this micro-batch.
        num_tokens: response tokens of the whole step.
        num_sequences: sequences of the whole step.
        max_response_tokens: the sampler's limit.

    Example:
        >>> token_divisors("sequence_mean", [2, 4], num_tokens=6, num_sequences=2, max_response_tokens=8)
        [4.0, 8.0]
    """
    match kind:
        case "token_mean":
            return [float(num_tokens)] * len(lengths)
        case "sequence_mean":
            return [float(num_sequences * max(1, length)) for length in lengths]
        case "constant":
            return [float(num_sequences * max_response_tokens)] * len(lengths)


def policy_gradient_loss(
    logprobs: Tensor, advantages: Sequence[float], lengths: Sequence[int], divisors: Sequence[float]
) -> Tensor:
    """Sum over tokens of -advantage * ratio / divisor, the ratio being that of a single update per batch.

    The ratio exp(logp - stop_gradient(logp)) is 1 in value and gives the gradient of logp, so the training pass itself
    is the scoring pass.

    Args:
        logprobs: [n] of the response tokens, sequence after sequence, differentiable.
        advantages: one per sequence.
        lengths: response tokens per sequence; they sum to n.
        divisors: one per sequence, from `token_divisors`.
    """
    scale = torch.tensor([a / d for a, d in zip(advantages, divisors, strict=True)], dtype=logprobs.dtype)
    per_token = scale.repeat_interleave(torch.tensor(lengths, dtype=torch.long)).to(logprobs.device)
    ratio = torch.exp(logprobs - logprobs.detach())
    return -(per_token * ratio).sum()
