"""The method: the surge of the response length sets the period at which the learning rate decays."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from actors.lr_policies.base import LrDecision
from actors.lr_policies.decay import EXACT, Decay, decimal
from actors.lr_policies.detector import Detector, DetectorConfig
from actors.lr_policies.step_order import StepOrder
from actors.settings import Count

LENGTH_KEY = "response/length_mean"  # tokens, over all responses generated in the step


class LengthTriggeredConfig(DetectorConfig):
    """`kind: length_triggered`."""

    kind: Literal["length_triggered"] = "length_triggered"
    period_multiplier: Annotated[float, Field(gt=0)] = 1.8
    anchor: Literal["start", "surge"] = "start"
    surge_step: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None  # by hand: nothing is detected
    decay_period: Count | None = None  # by hand, in steps: holds from step 0 on

    def period_after(self, surge_step: int) -> int:
        """P = floor(period_multiplier * surge_step) of the decimal numbers, in steps, at least 1."""
        return max(1, int(EXACT.multiply(decimal(self.period_multiplier), surge_step)))

    def build(self, total_steps: int | None) -> "LengthTriggeredPolicy":
        return LengthTriggeredPolicy(self)


class LengthTriggeredPolicy:
    """n = floor((t - origin) / P) decays at step t, P from the surge step s (docs/method.md section 4).

    The origin is step 0 (anchor `start`) or s (anchor `surge`). Events: `surge` once, `decay` when n grows, `floor`
    with the decay that reaches min_lr_ratio, the last one reported. Set by hand, s (and so P) is known from the start.

    >>> config = LengthTriggeredConfig(lr=1e-6, baseline_steps=2, smoothing=1.0, patience=1)
    >>> policy = config.build(total_steps=None)
    >>> lengths = {0: 1000.0, 1: 1000.0, 5: 3000.0, 9: 3000.0, 30: None}
    >>> for step, length in lengths.items():
    ...     print(policy.observe(step, {"response/length_mean": length}))
    LrDecision(step=0, lr=1e-06, events=())
    LrDecision(step=1, lr=1e-06, events=())
    LrDecision(step=5, lr=1e-06, events=('surge',))
    LrDecision(step=9, lr=5e-07, events=('decay',))
    LrDecision(step=30, lr=1.25e-07, events=('decay',))
    """

    def __init__(self, config: LengthTriggeredConfig) -> None:
        self._config = config
        self._order = StepOrder()
        self._detector = Detector(config)
        self._decay = Decay(config)
        self._set_surge_step(config.surge_step)
        self._surge_reported = False

    @property
    def signals(self) -> tuple[str, ...]:
        return (LENGTH_KEY,) if self._config.surge_step is None else ()

    @property
    def detector(self) -> Detector:
        """What looks for the surge: to be looked at, not fed."""
        return self._detector

    def observe(self, step: int, metrics: Mapping[str, float | None]) -> LrDecision:
        """Decide the lr of `step`; ValueError when it is not greater than the last one."""
        self._order.advance(step)
        surge = self._look_for_surge(step, metrics)
        events = surge + self._decay.move_to(self._decays_due(step))
        return LrDecision(step=step, lr=self._config.lr_after(step, self._decay.num_decays), events=events)

    def _look_for_surge(self, step: int, metrics: Mapping[str, float | None]) -> tuple[str, ...]:
        if self._surge_reported:
            return ()
        if self._config.surge_step is not None:
            self._surge_reported = step >= self._config.surge_step
        elif self._detector.rises(metrics.get(LENGTH_KEY)):
            self._set_surge_step(step)
            self._surge_reported = True
        return ("surge",) if self._surge_reported else ()

    def _set_surge_step(self, step: int | None) -> None:
        """Keep the surge step, and the period with it: worked out once, as decimals are slow."""
        self._surge_step = step
        self._surge_period = None if step is None else self._config.period_after(step)

    def _decays_due(self, step: int) -> int:
        origin = 0 if self._config.anchor == "start" else self._surge_step
        period = self._surge_period if self._config.decay_period is None else self._config.decay_period
        if origin is None or period is None or step < origin:
            return 0
        return (step - origin) // period

    def state_dict(self) -> dict[str, Any]:
        return {
            **self._order.state_dict(),
            **self._decay.state_dict(),
            "detector": self._detector.state_dict(),
            "surge_step": self._surge_step,
            "surge_reported": self._surge_reported,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._order.load_state_dict(state)
        self._decay.load_state_dict(state)
        self._detector.load_state_dict(state["detector"])
        self._set_surge_step(state["surge_step"])
        self._surge_reported = state["surge_reported"]
