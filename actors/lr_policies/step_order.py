"""The one thing every policy remembers: the last step it saw."""

from collections.abc import Mapping
from typing import Any


class StepOrder:
    """Lets steps through in growing order; the first may be any, and gaps are fine."""

    def __init__(self) -> None:
        self._last: int | None = None

    def advance(self, step: int) -> None:
        """Move on to `step`.

        Raises:
            ValueError: `step` is negative or not greater than the last one.
        """
        if step < 0:
            raise ValueError(f"step {step} is negative; steps count from 0")
        if self._last is not None and step <= self._last:
            raise ValueError(f"step {step} does not come after step {self._last}, the last one observed")
        self._last = step

    def state_dict(self) -> dict[str, Any]:
        return {"last_step": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._last = state["last_step"]
