"""Decay every so many steps, whatever the run does."""

from typing import Annotated, Literal

from pydantic import Field

from actors.lr_policies.decay import DecayConfig
from actors.lr_policies.schedule import Schedule
from actors.settings import Count


class StepConfig(DecayConfig):
    """`kind: step`."""

    kind: Literal["step"] = "step"
    period: Count  # steps
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0

    def build(self, total_steps: int | None) -> "StepPolicy":
        return StepPolicy(self)


class StepPolicy(Schedule):
    """lr * warm(t) * max(factor^floor(t / period), min_lr_ratio) (docs/method.md section 4).

    >>> policy = StepConfig(lr=2e-6, period=10).build(total_steps=None)
    >>> [policy.observe(step, {}).lr for step in (0, 9, 10, 20)]
    [2e-06, 2e-06, 1e-06, 5e-07]
    """

    def __init__(self, config: StepConfig) -> None:
        super().__init__()
        self._config = config

    def lr_at(self, step: int) -> float:
        return self._config.lr_after(step, num_decays=step // self._config.period)
