"""Means with 95% intervals over seeds, by the percentile bootstrap."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
RESAMPLES = 10_000
GENERATOR_SEED = 20_260_101  # fixed: the same runs give the same table


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over seeds, and where it lies in 95% of the bootstrap's resamples.

    With two or three seeds that is from the smallest to the largest of them (the three equal draws that an end needs
    come up in 1 of 27 resamples, more often than 2.5%); it takes about ten before the interval deserves its name.

    Example:
        Interval(mean=0.62, low=0.58, high=0.67, num_seeds=3)
    """

    mean: float
    low: float  # equal to the mean when there is one seed
    high: float
    num_seeds: int


def mean_interval(by_seed: Mapping[int, float]) -> Interval | None:
    """Mean over seeds with its interval; seeds without a value (NaN) are left out, None when none is left.

    >>> mean_interval({0: 1.0, 1: 3.0})
    Interval(mean=2.0, low=1.0, high=3.0, num_seeds=2)
    """
    values = np.array([by_seed[seed] for seed in sorted(by_seed)], np.float64)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return None
    drawn = np.random.default_rng(GENERATOR_SEED).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high), num_seeds=len(values))


def paired_difference(by_seed: Mapping[int, float], reference: Mapping[int, float]) -> Interval | None:
    """Mean over the seeds that both have of value - reference, with its interval; None when they share no seed.

    Runs of the same seed draw their prompts from the same stream in the same order, and what they have in common
    cancels within the pair. Where flat groups are dropped, how far a step gets in it depends on the run's own policy.

    >>> paired_difference({0: 1.5, 1: 2.5, 7: 9.0}, {0: 1.0, 1: 2.0})
    Interval(mean=0.5, low=0.5, high=0.5, num_seeds=2)
    """
    return mean_interval({seed: by_seed[seed] - reference[seed] for seed in by_seed.keys() & reference.keys()})
