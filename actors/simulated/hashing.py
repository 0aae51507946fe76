"""Random numbers that are functions of integers: the same in every process, many at a time."""

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]


def mixed(keys: Keys) -> Keys:
    """Integers that look random, each a function of one key (the finaliser of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        keys = keys + np.uint64(0x9E3779B97F4A7C15)
        keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return keys ^ (keys >> np.uint64(31))


def uniform(keys: Keys) -> NDArray[np.float64]:
    """Numbers in [0, 1), each a function of one key.

    Example:
        >>> [round(float(number), 3) for number in uniform(np.arange(3, dtype=np.uint64))]
        [0.883, 0.431, 0.032]
    """
    return (mixed(keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53
