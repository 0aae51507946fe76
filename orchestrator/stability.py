"""Has the run collapsed? The verdict on a run, step by step, and its reason as data (docs/method.md section 7)."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from actors.settings import Count, Settings
from orchestrator.collapse_signs import LowReward, Mismatch, NonfiniteGradient, Reason, ShortResponses, Sign

Share = Annotated[float, Field(ge=0, le=1)]


class StabilityConfig(Settings):
    """The `stability:` block: what counts as a collapse, and what follows from one.

    Example:
        >>> StabilityConfig().patience
        10
    """

    on_collapse: Literal["stop", "record"] = Field("record", description="end the run at the verdict, or only note it")
    patience: Count = Field(10, description="consecutive steps for which a condition has to hold")
    smoothing: float = Field(0.1, gt=0, le=1, description="weight of the newest value in the moving averages")
    fraction: Share = Field(0.5, description="collapsed when the reward average is below this share of its best")
    min_reward: float = Field(0.1, ge=0, description="what the best reward average must have reached before")
    short_ratio: Share = Field(0.1, description="collapsed when the length average is below this share of the start's")
    max_mismatch: Annotated[float, Field(gt=0)] | None = Field(
        None, description="collapsed when the average of mismatch/log_ppl_abs_diff is above this; null never"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A run has collapsed: at the step at which one condition had held for `patience` consecutive steps.

    Example:
        Verdict(step=312, reason="reward",
                detail="the moving average of the reward, 0.21, was below 0.5 times its best, 0.44, 10 steps in a row")
    """

    step: int
    reason: Reason
    detail: str  # one sentence with the figures


class StabilityMonitor:
    """A pure state machine from a run's metrics to at most one verdict: no I/O, no clock.

    A value that is missing or not finite changes nothing, neither its average nor its counter. When two conditions are
    fulfilled at the same step, the reason is the first of: gradient, reward, length, mismatch.

    >>> monitor = StabilityMonitor(StabilityConfig(patience=2))
    >>> for step in range(4):
    ...     print(monitor.observe(step, {"gradient/nonfinite": 0.0 if step == 0 else 3.0}))
    None
    None
    Verdict(step=2, reason='nonfinite_gradient', detail='the gradient had 3 non-finite elements, 2 steps in a row')
    None
    """

    def __init__(self, config: StabilityConfig) -> None:
        self._patience = config.patience
        self._signs: tuple[Sign, ...] = (
            NonfiniteGradient(),
            LowReward(config.smoothing, config.fraction, config.min_reward),
            ShortResponses(config.smoothing, config.short_ratio),
            *([] if config.max_mismatch is None else [Mismatch(config.smoothing, config.max_mismatch)]),
        )
        self._verdict: Verdict | None = None

    @property
    def verdict(self) -> Verdict | None:
        """The verdict, from its step on."""
        return self._verdict

    def observe(self, step: int, metrics: Mapping[str, float | None]) -> Verdict | None:
        """Take in the metrics of `step`; the verdict at the step at which it falls, None before and after it."""
        if self._verdict is not None:
            return None
        for sign in self._signs:
            sign.take(metrics.get(sign.key))
        for sign in self._signs:
            if sign.count >= self._patience:
                detail = f"{sign.detail()}, {self._patience} steps in a row"
                self._verdict = Verdict(step=step, reason=sign.reason, detail=detail)
                break
        return self._verdict

    def state_dict(self) -> dict[str, Any]:
        """The whole state in JSON types; safe to keep while the monitor goes on."""
        return {
            "signs": {sign.reason: sign.state_dict() for sign in self._signs},
            "verdict": None if self._verdict is None else asdict(self._verdict),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the monitor that saved `state` stood.

        Raises:
            KeyError: an entry is missing, as when a monitor with other conditions wrote the state.
        """
        for sign in self._signs:
            sign.load_state_dict(state["signs"][sign.reason])
        self._verdict = None if state["verdict"] is None else Verdict(**state["verdict"])


def judge(rows: Iterable[Mapping[str, float]], config: StabilityConfig) -> Verdict | None:
    """The verdict of a fresh monitor over recorded steps in their order, each with `step` and metric keys.

    >>> judge([{"step": step, "gradient/nonfinite": 1.0} for step in range(40, 60)], StabilityConfig()).step
    49
    """
    monitor = StabilityMonitor(config)
    for row in rows:
        monitor.observe(int(row["step"]), row)
    return monitor.verdict
