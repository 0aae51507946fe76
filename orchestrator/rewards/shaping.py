"""Shaping of rewards: what length costs, and what form earns. Pure functions; the sum is the caller's business."""

import re

from orchestrator.rewards.config import FormatConfig, OverlongConfig


def overlong_penalty(config: OverlongConfig, num_tokens: int, max_response_tokens: int) -> float:
    """What a response's length adds to its reward (DAPO, arXiv 2503.14476, equation 13).

    Nothing up to `max_response_tokens - buffer` tokens, then falling linearly to -penalty at `max_response_tokens`.

    >>> [overlong_penalty(OverlongConfig(buffer=20), tokens, 100) for tokens in (80, 85, 100)]
    [0.0, -0.25, -1.0]

    Args:
        config: the buffer, in tokens, and the penalty.
        num_tokens: length of the response.
        max_response_tokens: what the experiment allows.

    Returns:
        A number from -penalty to 0.
    """
    excess = num_tokens - (max_response_tokens - config.buffer)
    if excess <= 0:
        return 0.0
    return -config.penalty * min(excess / config.buffer, 1.0)


def format_bonus(config: FormatConfig, response: str) -> float:
    """The bonus when the pattern is found in the response, otherwise 0; takes as long as the pattern takes."""
    return config.bonus if re.search(config.pattern, response) else 0.0
