"""What each trial reached and at what mismatch: the points between which a study lets one choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeps.curves import Curves
from sweeps.intervals import mean_interval
from sweeps.measures import Measure, measures, validation_keys
from sweeps.summary import by_arm

REWARD_LAST, MISMATCH_LAST = "reward, last", "mismatch, last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """An arm, means over its seeds.

    Example:
        Point(arm="trial-007", reached=0.71, mismatch=0.0021, is_best=True)
    """

    arm: str
    reached: float  # validation, or reward where there is none; the last of the run
    mismatch: float
    is_best: bool  # no other arm reaches as much at as little mismatch and is better in one of the two


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """The points of several arms.

    Example:
        Frontier(reached="held_out avg@4, last", points={"trial-007": point})
    """

    reached: str  # what it is that they reach; empty without points
    points: Mapping[str, Point]  # by arm


def frontier(runs: Sequence[Curves], arms: Sequence[str]) -> Frontier:
    """The points of these arms, as far as they have recorded both.

    Args:
        runs: of all arms.
        arms: that are finished.
    """
    runs = [run for run in runs if run.arm in arms]
    by_heading = {measure.heading: measure for measure in measures(runs)}
    wanted = [measure.heading for measure in by_heading.values() if measure.key in validation_keys(runs)[:1]]
    reached = by_heading.get(wanted[-1] if wanted else REWARD_LAST)
    mismatch = by_heading.get(MISMATCH_LAST)
    if reached is None or mismatch is None:
        return Frontier(reached="", points={})
    pairs = {arm: (_mean(reached, seeds), _mean(mismatch, seeds)) for arm, seeds in by_arm(runs).items()}
    whole = {arm: (a, b) for arm, (a, b) in pairs.items() if a is not None and b is not None}
    best = pareto(whole)
    return Frontier(
        reached=reached.heading,
        points={arm: Point(arm=arm, reached=a, mismatch=b, is_best=arm in best) for arm, (a, b) in whole.items()},
    )


def pareto(pairs: Mapping[str, tuple[float, float]]) -> set[str]:
    """Those of which no other has at least as much of the first and at most as much of the second, and is not equal.

    >>> sorted(pareto({"a": (0.5, 1.0), "b": (0.6, 2.0), "c": (0.5, 3.0)}))
    ['a', 'b']
    """
    return {
        name
        for name, (much, little) in pairs.items()
        if not any(a >= much and b <= little and (a, b) != (much, little) for a, b in pairs.values())
    }


def _mean(measure: Measure, runs: Sequence[Curves]) -> float | None:
    interval = mean_interval({run.seed: measure.of(run) for run in runs})
    return None if interval is None else interval.mean
