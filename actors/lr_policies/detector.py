"""When has a noisy signal risen for good? A smoothed value above its level, several times in a row."""

import math
from collections.abc import Mapping
from statistics import median
from typing import Annotated, Any

from pydantic import Field

from actors.ema import Ema
from actors.lr_policies.decay import DecayConfig
from actors.settings import Count


class DetectorConfig(DecayConfig):
    """A policy that decays after a signal has risen."""

    baseline_steps: Count = 50  # usable values, not step numbers
    smoothing: Annotated[float, Field(gt=0, le=1)] = 0.2  # weight of the newest value
    ratio: Annotated[float, Field(gt=0)] = 2.0
    patience: Count = 3


class Detector:
    """Counts how many usable values in a row had their EMA above a level (docs/method.md section 4).

    The level is `threshold`, or else ratio times the baseline: the median of the first `baseline_steps` usable values
    as they came, not smoothed. Those values only set the baseline and are never counted themselves.

    >>> from actors.lr_policies import LengthTriggeredConfig
    >>> detector = Detector(LengthTriggeredConfig(baseline_steps=2, smoothing=1.0, patience=2))
    >>> [detector.rises(value) for value in (10.0, 12.0, 23.0, None, 23.0)]
    [False, False, False, False, True]
    """

    def __init__(self, config: DetectorConfig, threshold: float | None = None) -> None:
        self._config = config
        self._threshold = threshold
        self._ema = Ema(config.smoothing)
        self._baseline: float | None = None
        self._baseline_values: list[float] = []
        self._count = 0

    def rises(self, value: float | None) -> bool:
        """Take in one value; True when it is usable and the count stands at `patience` or above."""
        if value is None or not math.isfinite(value):
            return False
        value = float(value)
        average = self._ema.update(value)
        level = self.level
        if level is None:
            self._collect(value)
            return False
        self._count = self._count + 1 if average > level else 0
        return self._count >= self._config.patience

    def restart(self) -> None:
        """Count from 0 again; the EMA and the baseline stay."""
        self._count = 0

    @property
    def ema(self) -> float | None:
        """The smoothed signal, in the signal's unit; None before the first usable value."""
        return self._ema.value

    @property
    def level(self) -> float | None:
        """What the EMA is compared with, in the signal's unit; None while the baseline is being collected."""
        if self._threshold is not None:
            return self._threshold
        return None if self._baseline is None else self._config.ratio * self._baseline

    @property
    def count(self) -> int:
        """How many usable values in a row had their EMA above the level."""
        return self._count

    def _collect(self, value: float) -> None:
        self._baseline_values.append(value)
        if len(self._baseline_values) == self._config.baseline_steps:
            self._baseline = median(self._baseline_values)
            self._baseline_values = []

    def state_dict(self) -> dict[str, Any]:
        return {
            "ema": self._ema.value,
            "baseline": self._baseline,
            "baseline_values": list(self._baseline_values),
            "count": self._count,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._ema.value = state["ema"]
        self._baseline = state["baseline"]
        self._baseline_values = list(state["baseline_values"])
        self._count = state["count"]
