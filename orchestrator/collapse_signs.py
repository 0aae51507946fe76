"""The four signs of a collapsed run, and for how many steps in a row each has shown (docs/method.md section 7)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from statistics import median
from typing import Any, ClassVar, Literal

from actors.ema import Ema

Reason = Literal["nonfinite_gradient", "reward", "length", "mismatch"]

FIRST_LENGTHS = 20  # values whose median says how long responses were at the start


class Sign(ABC):
    """A condition on one metric, with its own counter.

    for step, metrics in run:
        sign.take(metrics.get(sign.key))
        collapsed = sign.count >= patience
    """

    key: ClassVar[str]  # the metric
    reason: ClassVar[Reason]

    def __init__(self) -> None:
        self.count = 0  # consecutive usable values at which the condition held

    def take(self, value: float | None) -> None:
        """Take in one step's value; missing or not finite, it changes nothing."""
        if value is not None and math.isfinite(value):
            self.count = self.count + 1 if self.holds(float(value)) else 0

    @abstractmethod
    def holds(self, value: float) -> bool:
        """Take in a finite value; whether the condition holds after it."""

    @abstractmethod
    def detail(self) -> str:
        """Why the condition holds, in one clause with the figures."""

    def state_dict(self) -> dict[str, Any]:
        """The whole state in JSON types."""
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the sign that saved `state` stood."""
        self.count = state["count"]


class NonfiniteGradient(Sign):
    """Elements of the gradient were NaN or infinite."""

    key = "gradient/nonfinite"
    reason = "nonfinite_gradient"

    def __init__(self) -> None:
        super().__init__()
        self._num_elements = 0.0

    def holds(self, value: float) -> bool:
        self._num_elements = value
        return value > 0

    def detail(self) -> str:
        return f"the gradient had {self._num_elements:.0f} non-finite elements"

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "num_elements": self._num_elements}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._num_elements = state["num_elements"]


class _Smoothed(Sign):
    """A condition on the moving average of its metric: the first value as it is."""

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self._ema = Ema(smoothing)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "ema": self._ema.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._ema.value = state["ema"]


class LowReward(_Smoothed):
    """The reward's average is below `fraction` of its best so far, once that has reached `min_reward`."""

    key = "reward/mean"
    reason = "reward"

    def __init__(self, smoothing: float, fraction: float, min_reward: float) -> None:
        super().__init__(smoothing)
        self._fraction = fraction
        self._min_reward = min_reward
        self._best: float | None = None

    def holds(self, value: float) -> bool:
        average = self._ema.update(value)
        self._best = average if self._best is None else max(self._best, average)
        return self._best >= self._min_reward and average < self._fraction * self._best

    def detail(self) -> str:
        best = f"{self._fraction:g} times its best, {self._best:.4g}"
        return f"the moving average of the reward, {self._ema.value:.4g}, was below {best}"

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._best = state["best"]


class ShortResponses(_Smoothed):
    """The response length's average is below `short_ratio` of the median of its first 20 values.

    The condition exists from the 20th value on.
    """

    key = "response/length_mean"
    reason = "length"

    def __init__(self, smoothing: float, short_ratio: float) -> None:
        super().__init__(smoothing)
        self._short_ratio = short_ratio
        self._first: list[float] = []  # at most FIRST_LENGTHS values, in tokens

    def holds(self, value: float) -> bool:
        average = self._ema.update(value)
        if len(self._first) < FIRST_LENGTHS:
            self._first.append(value)
        return len(self._first) == FIRST_LENGTHS and average < self._short_ratio * median(self._first)

    def detail(self) -> str:
        start = f"{self._short_ratio:g} times the {median(self._first):.4g} of the start"
        return f"the moving average of the response length, {self._ema.value:.4g} tokens, was below {start}"

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "first": list(self._first)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._first = list(state["first"])


class Mismatch(_Smoothed):
    """The average of the training-inference mismatch is above `max_mismatch`."""

    key = "mismatch/log_ppl_abs_diff"
    reason = "mismatch"

    def __init__(self, smoothing: float, max_mismatch: float) -> None:
        super().__init__(smoothing)
        self._max_mismatch = max_mismatch

    def holds(self, value: float) -> bool:
        return self._ema.update(value) > self._max_mismatch

    def detail(self) -> str:
        return f"the moving average of the mismatch, {self._ema.value:.4g}, was above {self._max_mismatch:g}"
