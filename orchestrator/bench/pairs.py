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
    (2.2, 2.0)
    """

    ours: tuple[float, ...]
    bare: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Of the medians, ours over bare."""
        return Spread.of(self.ours).median / Spread.of(self.bare).median

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
    ours_s: list[float] = []
    bare_s: list[float] = []
    for number in range(-warm_ups, pairs):
        sides = [(ours_s, ours), (bare_s, bare)]
        for seconds, side in sides if number % 2 else reversed(sides):
            took = side()
            if number >= 0:
                seconds.append(took)
    return Pairs(ours=tuple(ours_s), bare=tuple(bare_s))


def timed(work: Callable[[], object]) -> Timed:
    """The same work, telling how many seconds it took."""

    def once() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return once
