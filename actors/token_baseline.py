"""The optimal token baseline: what a response's reward is compared with, token by token (docs/method.md section 6)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def score_norms(logprobs: NDArray[np.floating[Any]], square_sums: NDArray[np.floating[Any]]) -> Floats:
    """[T] squared norm of each token's score in logit space: 1 - 2 pi + sum_v pi_v^2, at least 0.

    Args:
        logprobs: [T] of the sampled tokens under the learner.
        square_sums: [T] sum of the squared probabilities of the whole vocabulary at each position.
    """
    pi = np.exp(np.asarray(logprobs, np.float64))
    norms: Floats = np.maximum(np.square(1 - pi) + (square_sums - np.square(pi)), 0.0)
    return norms


def optimal_token_baseline(rewards: Sequence[float], norms: Sequence[Floats]) -> list[Floats]:
    """Baseline B_t of each token of the responses to one prompt.

    B_t = sum_i R_i W_it / sum_i W_it over the responses that have a token t, where W_it is the sum of response i's
    score norms up to and with t. Where every W_it is 0, so is the gradient, and B_t is the plain mean.

    Args:
        rewards: [G].
        norms: [G] arrays [T_i], of `score_norms`.

    Returns:
        [G] arrays [T_i].

    Example:
        >>> [baseline.tolist() for baseline in optimal_token_baseline([1.0, 0.0], [np.ones(2), np.full(1, 3.0)])]
        [[0.25, 1.0], [0.25]]
    """
    lengths = np.array([len(one) for one in norms])
    alive = np.arange(lengths.max(initial=0)) < lengths[:, None]  # [G, T]
    energy = np.zeros(alive.shape)
    energy[alive] = np.concatenate([np.cumsum(one) for one in norms]) if len(norms) else 0.0
    total = energy.sum(axis=0)
    weight = np.where(total > 0, energy, alive)
    baseline = (np.asarray(rewards, np.float64)[:, None] * weight).sum(axis=0) / weight.sum(axis=0)
    return [baseline[:length] for length in lengths]
