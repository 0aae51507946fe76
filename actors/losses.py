"""Policy-gradient loss of a micro-batch, divided so that the micro-batches and ranks of a step add up to the whole."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from actors.config import LossKind


class ClipRange(NamedTuple):
    """The clipped surrogate's range [1 - low, 1 + high] of the ratio between new and old policy."""

    low: float
    high: float


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
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, weights: Tensor, clip: ClipRange
) -> Tensor:
    """Sum over tokens of weight * -min(ratio * advantage, clip(ratio, 1 - low, 1 + high) * advantage).

    The ratio is exp(logprob - old log-prob). With one update per batch the old log-probs are these very ones, detached:
    the ratio is then 1 in value and gives the gradient of the log-prob, nothing is clipped, and the training pass
    itself is the scoring pass.

    Args:
        logprobs: [n] of the response tokens, differentiable.
        old_logprobs: [n] of the same tokens under the policy whose neighbourhood the update should not leave.
        advantages: [n].
        weights: [n], a correction's over the token's divisor; a token of weight 0 adds nothing.
        clip: how far the ratio may take a token's loss.
    """
    ratio = torch.exp(logprobs - old_logprobs)
    clipped = ratio.clamp(1 - clip.low, 1 + clip.high)
    return -(weights * torch.minimum(ratio * advantages, clipped * advantages)).sum()
