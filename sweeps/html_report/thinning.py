"""Lines with fewer points that still show every peak."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_POINTS = 1000  # of a line on the page: more than its panel has pixels
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line and the band around it.

    Example:
        Line(steps=array([0, 1]), values=array([0.2, 0.3]), low=array([0.1, 0.2]), high=array([0.3, 0.4]))
    """

    steps: NDArray[np.int64]  # [N], growing
    values: Floats  # [N]
    low: Floats  # [N]; equal to the values where there is no band
    high: Floats  # [N]

    @classmethod
    def bare(cls, steps: NDArray[np.int64], values: Floats) -> "Line":
        """A line without a band, over the steps [N] at which it has a value."""
        there = ~np.isnan(values)
        return cls(steps=steps[there], values=values[there], low=values[there], high=values[there])

    def thinned(self, most: int = MOST_POINTS) -> "Line":
        """This line when it has at most that many points; else two for each of `most` / 2 stretches of it.

        These are the points with the smallest and the largest value of the stretch; the band there reaches from the
        smallest `low` to the largest `high` of the stretch. So nothing that stands out is lost.
        """
        if len(self.steps) <= most:
            return self
        edges = np.linspace(0, len(self.steps), most // 2 + 1).astype(np.int64)
        starts, sizes = edges[:-1], np.diff(edges)
        kept = np.concatenate([_extremes(self.values, *stretch) for stretch in zip(starts, edges[1:], strict=True)])
        stretch = np.repeat(np.arange(len(starts)), sizes)[kept]
        return Line(
            steps=self.steps[kept],
            values=self.values[kept],
            low=np.minimum.reduceat(self.low, starts)[stretch],
            high=np.maximum.reduceat(self.high, starts)[stretch],
        )


def _extremes(values: Floats, start: int, end: int) -> NDArray[np.int64]:
    """[1 or 2] where the smallest and the largest value are, in their order."""
    part = values[start:end]
    return start + np.unique([np.argmin(part), np.argmax(part)])
