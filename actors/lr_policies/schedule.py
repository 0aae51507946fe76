"""Policies that look at the step number and at nothing else."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from actors.lr_policies.base import LrDecision
from actors.lr_policies.step_order import StepOrder


class Schedule(ABC):
    """An lr that is a function of the step: reads no metric, reports no event."""

    signals: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._order = StepOrder()

    @abstractmethod
    def lr_at(self, step: int) -> float:
        """The learning rate of `step`, warm-up included."""

    def observe(self, step: int, metrics: Mapping[str, float | None]) -> LrDecision:
        """Decide the lr of `step`; ValueError when it is not greater than the last one."""
        self._order.advance(step)
        return LrDecision(step=step, lr=self.lr_at(step), events=())

    def state_dict(self) -> dict[str, Any]:
        return self._order.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._order.load_state_dict(state)
