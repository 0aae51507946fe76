"""The figures that stand for a whole run in a table: first, best and last values of its metrics."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweeps.curves import Curves

WINDOW = 5  # steps in the means that smooth a noisy metric
VALIDATION = re.compile(r"^eval/(.+)/(avg@\d+)$")  # eval/<set>/avg@<n>
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One figure of a run.

    Example:
        Measure(heading="reward, last", key="reward/mean", pick=last_window, spec=".3f", compared=True)
    """

    heading: str
    key: str  # the metric
    pick: Callable[[Floats], float]  # from the metric's values [N], at least one and none of them NaN
    spec: str  # how the figure is written
    compared: bool = False  # whether arms are also set against each other by it

    def of(self, run: Curves) -> float:
        """The figure of a run; NaN when it never recorded the metric."""
        values = run.column(self.key)
        present = values[~np.isnan(values)]
        return self.pick(present) if len(present) else float("nan")

    def write(self, value: float, spec: str | None = None) -> str:
        """The figure as text, exponents without idle characters: 7.60e-4."""
        return re.sub(
            r"e([+-])0?(\d)", lambda found: f"e{found[1].strip('+')}{found[2]}", f"{value:{spec or self.spec}}"
        )


def window_means(values: Floats) -> Floats:
    """Means over WINDOW consecutive values [N]; one mean of everything when there are fewer."""
    width = min(WINDOW, len(values))
    return np.convolve(values, np.ones(width) / width, mode="valid").astype(np.float64)


def first_window(values: Floats) -> float:
    """Mean of the first WINDOW values."""
    return float(window_means(values)[0])


def best_window(values: Floats) -> float:
    """The largest mean of WINDOW values in a row."""
    return float(np.max(window_means(values)))


def last_window(values: Floats) -> float:
    """Mean of the last WINDOW values."""
    return float(window_means(values)[-1])


def best(values: Floats) -> float:
    """The largest value as it was recorded."""
    return float(np.max(values))


def last(values: Floats) -> float:
    """The last value as it was recorded."""
    return float(values[-1])


def validation_keys(runs: Sequence[Curves]) -> list[str]:
    """The `eval/<set>/avg@<n>` keys that any of the runs recorded."""
    return sorted({key for run in runs for row in run.rows for key in row if VALIDATION.match(key)})


def validation_name(key: str) -> str:
    """`aime24 avg@32` of `eval/aime24/avg@32`."""
    return VALIDATION.sub(r"\1 \2", key)


def measures(runs: Sequence[Curves]) -> list[Measure]:
    """The figures of a table of these runs, in its order; those that none of them has are left out."""
    known = [*REWARD, *(measure for key in validation_keys(runs) for measure in _validation(key)), *OTHERS]
    return [measure for measure in known if any(not np.isnan(measure.of(run)) for run in runs)]


def _validation(key: str) -> tuple[Measure, Measure]:
    name = validation_name(key)
    return (
        Measure(heading=f"{name}, best", key=key, pick=best, spec=".3f", compared=True),
        Measure(heading=f"{name}, last", key=key, pick=last, spec=".3f", compared=True),
    )


LENGTH, MISMATCH = "response/length_mean", "mismatch/log_ppl_abs_diff"
REWARD = (
    Measure(heading="reward, first", key="reward/mean", pick=first_window, spec=".3f"),
    Measure(heading="reward, best", key="reward/mean", pick=best_window, spec=".3f"),
    Measure(heading="reward, last", key="reward/mean", pick=last_window, spec=".3f", compared=True),
)
OTHERS = (
    Measure(heading="length, first", key=LENGTH, pick=first_window, spec=".1f"),
    Measure(heading="length, last", key=LENGTH, pick=last_window, spec=".1f"),
    Measure(heading="mismatch, first", key=MISMATCH, pick=first_window, spec=".2e"),
    Measure(heading="mismatch, last", key=MISMATCH, pick=last_window, spec=".2e", compared=True),
    Measure(heading="smoothed norm, last", key="gradient/norm_smoothed", pick=last, spec=".3g", compared=True),
    Measure(heading="noise scale, last", key="gradient/noise_scale", pick=last, spec=".4g", compared=True),
    Measure(heading="learning rate, last", key="scheduler/lr", pick=last, spec=".2e"),
)
