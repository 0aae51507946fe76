"""Decay each time a logged metric has risen: mismatch, gradient noise, anything with a key."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from actors.lr_policies.base import LrDecision
from actors.lr_policies.decay import Decay
from actors.lr_policies.detector import Detector, DetectorConfig
from actors.lr_policies.step_order import StepOrder


class SignalTriggeredConfig(DetectorConfig):
    """`kind: signal_triggered`."""

    kind: Literal["signal_triggered"] = "signal_triggered"
    signal: Annotated[str, Field(min_length=1)]  # a metric key, such as mismatch/log_ppl_abs_diff
    threshold: float | None = None  # in the signal's unit; None: ratio * baseline
    cooldown_steps: Annotated[int, Field(ge=0, le=2**31 - 1)] = 50

    def build(self, total_steps: int | None) -> "SignalTriggeredPolicy":
        return SignalTriggeredPolicy(self)


class SignalTriggeredPolicy:
    """One more decay whenever the detector fires; then none for `cooldown_steps` (docs/method.md section 4).

    The detector counts on through the cooldown, so a signal that stays high fires at its very end. A row whose signal
    is missing never fires. Events: `decay`, and `floor` with the one that reaches min_lr_ratio; after it none follows.

    >>> config = SignalTriggeredConfig(
    ...     lr=1e-6, signal="gradient/noise_scale", threshold=5.0, smoothing=1.0, patience=2, cooldown_steps=3
    ... )
    >>> policy = config.build(total_steps=None)
    >>> for step in range(5):
    ...     print(policy.observe(step, {"gradient/noise_scale": 7.0}))
    LrDecision(step=0, lr=1e-06, events=())
    LrDecision(step=1, lr=5e-07, events=('decay',))
    LrDecision(step=2, lr=5e-07, events=())
    LrDecision(step=3, lr=5e-07, events=())
    LrDecision(step=4, lr=2.5e-07, events=('decay',))
    """

    def __init__(self, config: SignalTriggeredConfig) -> None:
        self._config = config
        self._order = StepOrder()
        self._detector = Detector(config, threshold=config.threshold)
        self._decay = Decay(config)
        self._cooldown_end = 0  # the first step that may fire

    @property
    def signals(self) -> tuple[str, ...]:
        return (self._config.signal,)

    @property
    def detector(self) -> Detector:
        """What watches the signal: to be looked at, not fed."""
        return self._detector

    def observe(self, step: int, metrics: Mapping[str, float | None]) -> LrDecision:
        """Decide the lr of `step`; ValueError when it is not greater than the last one."""
        self._order.advance(step)
        events: tuple[str, ...] = ()
        if self._detector.rises(metrics.get(self._config.signal)) and self._may_fire(step):
            events = self._decay.move_to(self._decay.num_decays + 1)
            self._detector.restart()
            self._cooldown_end = step + self._config.cooldown_steps
        return LrDecision(step=step, lr=self._config.lr_after(step, self._decay.num_decays), events=events)

    def _may_fire(self, step: int) -> bool:
        return step >= self._cooldown_end and not self._decay.on_floor

    def state_dict(self) -> dict[str, Any]:
        return {
            **self._order.state_dict(),
            **self._decay.state_dict(),
            "detector": self._detector.state_dict(),
            "cooldown_end": self._cooldown_end,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._order.load_state_dict(state)
        self._decay.load_state_dict(state)
        self._detector.load_state_dict(state["detector"])
        self._cooldown_end = state["cooldown_end"]
