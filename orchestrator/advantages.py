"""Group-relative advantages: how much better a response did than the others to the same prompt."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actors.config import AdvantageKind

EPSILON = 1e-6


def group_advantages(kind: AdvantageKind, rewards: ArrayLike) -> NDArray[np.float64]:
    """Advantages of the responses to one prompt.

    Args:
        kind: `grpo`: (reward - mean) / (std + 1e-6), std with ddof 1 (Shao et al. 2024); `dr_grpo`: reward - mean (Liu
            et al. 2025); `rloo`: reward minus the mean of the others (Ahmadian et al. 2024);
            `optimal_token_baseline`: the reward itself, from which the learners take a baseline token by token.
        rewards: [G], G at least 2.

    Returns:
        [G], sum zero but for `optimal_token_baseline`.

    Example:
        >>> group_advantages("rloo", [1.0, 0.0, 0.0]).tolist()
        [1.0, -0.5, -0.5]
    """
    scores = np.asarray(rewards, np.float64)
    if kind == "optimal_token_baseline":
        return scores
    centred: NDArray[np.float64] = scores - scores.mean()
    scale = {"grpo": 1 / (scores.std(ddof=1) + EPSILON), "dr_grpo": 1.0, "rloo": len(scores) / (len(scores) - 1)}
    advantages: NDArray[np.float64] = centred * scale[kind]
    return advantages
