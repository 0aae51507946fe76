"""What every learning-rate policy shares: the decisions it returns, the calls it answers and its config's fields."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True, slots=True, kw_only=True)
class LrDecision:
    """The learning rate for one step's optimiser update, and what happened to the schedule at that step.

    Example:
        LrDecision(step=816, lr=1e-07, events=("decay", "floor"))
    """

    step: int
    lr: float
    events: tuple[str, ...]  # of "surge", "decay", "floor", in this order


class LrPolicy(Protocol):
    """A pure state machine from metrics to learning rates: no I/O, no clock, no randomness.

    The loop that drives it, where `metrics` are those of the same step, before its update:

        policy = config.build(total_steps=3000)
        for step, metrics in run:
            decision = policy.observe(step, metrics)
            learner.apply(lr=decision.lr)
            checkpoint.save(policy.state_dict())
    """

    @property
    def signals(self) -> tuple[str, ...]:
        """The metric keys that `observe` reads; empty when the step number is enough."""
        ...

    def observe(self, step: int, metrics: Mapping[str, float | None]) -> LrDecision:
        """Decide the lr of `step`; a signal that is missing, None or not finite changes nothing but the step.

        Raises:
            ValueError: `step` is negative or not greater than the last one observed.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """The whole state in JSON types; safe to keep while the policy goes on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the policy that saved `state` stood.

        Raises:
            KeyError: an entry is missing, as when another kind of policy wrote the state.
        """
        ...


class PolicyConfig(BaseModel, ABC):
    """Fields of every policy; strict, so that `lr: "1e-6"` or `warmup_steps: true` is refused, not guessed at."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    lr: Annotated[float, Field(ge=0)] = 1e-6  # 0 is a control arm: the mismatch without the optimiser
    warmup_steps: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    def warm(self, step: int) -> float:
        """Warm-up factor of `step`, in (0, 1]: a linear rise that reaches 1 at step warmup_steps - 1."""
        return min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0

    @abstractmethod
    def build(self, total_steps: int | None) -> LrPolicy:
        """A fresh policy; `total_steps` is the length of the experiment, for those that need one and set none."""
