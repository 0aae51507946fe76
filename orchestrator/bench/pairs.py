"""Ours and the bare parts, timed in turns within one run: whatever else the machine does strikes both alike."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

QUARTERS = 4
FEWEST_FOR_QUARTILES = 2

Timed = Callable[[], float]  # does its work once; the seconds that it took


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The middle of some measurements and how far they lie apart.

    >>> Spread.of([3.0, 1.0, 2.0, 10.0, 4.0])
    Spread(median=3.0, lower=2.0, upper=4.0)
    """

    median: float
    lower: float  # quartile
    upper: float  # quartile

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """Of at least one value; a single one is its own quartiles."""
        if len(values) < FEWEST_FOR_QUARTILES:
            return Spread(median=values[0], lower=values[0], upper=values[0])
        lower, median, upper = statistics.quantiles(values, n=QUARTERS, method="inclusive")
        return Spread(median=median, lower=lower, upper=upper)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """What both sides took, pair by pair; in seconds or any other unit.

    >>> pairs = Pairs(ours=(2.0, 2.2, 2.4), bare=(1.0, 1.0, 1.2))
    >>> round(pairs.ratio, 3), pairs.ratios.lower
    (2.0, 2.0)
    """

    ours: tuple[float, ...]
    bare: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Ours over bare: the median of the pairs' ratios, as both sides of a pair found the machine alike."""
        return self.ratios.median

    @property
    def ratios(self) -> Spread:
        """Of the pairs."""
        return Spread.of([ours / bare for ours, bare in zip(self.ours, self.bare, strict=True)])


def interleaved(ours: Timed, bare: Timed, pairs: int, warm_ups: int = 1) -> Pairs:
    """Time both in turns, the one that goes first changing from pair to pair.

    Args:
        ours: what is measured.
        bare: what it is compared with.
        pairs: how many of them.
        warm_ups: pairs beforehand that do not count.
    """
    (measured,) = all_interleaved([ours], bare, pairs, warm_ups)
    return measured


def all_interleaved(ours: Sequence[Timed], bare: Timed, pairs: int, warm_ups: int = 1) -> list[Pairs]:
    """Time several things, and what all of them are compared with once for all; arguments as above."""
    sides = [*ours, bare]
    seconds: list[list[float]] = [[] for _ in sides]
    for number in range(-warm_ups, pairs):
        order = range(len(sides)) if number % 2 else reversed(range(len(sides)))
        for place in order:
            took = sides[place]()
            if number >= 0:
                seconds[place].append(took)
    return [Pairs(ours=tuple(measured), bare=tuple(seconds[-1])) for measured in seconds[:-1]]


def timed(work: Callable[[], object]) -> Timed:
    """The same work, telling how many seconds it took."""

    def once() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return once
