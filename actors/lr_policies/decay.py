"""Decay by a factor, n times, down to a floor: the arithmetic and the events of every policy that decays in steps."""

from collections.abc import Mapping
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from typing import Annotated, Any

from pydantic import Field

from actors.lr_policies.base import PolicyConfig

# A float has at most 17 digits in decimal, so 60 hold every product of a float with a step number, and every power
# of a float that can equal another float: where equality is possible, the comparison is exact.
EXACT = Context(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])


def decimal(value: float) -> Decimal:
    """The number as its user wrote it: 0.1 is one tenth, not the nearest binary fraction."""
    return Decimal(repr(float(value)))


class DecayConfig(PolicyConfig):
    """A learning rate that is multiplied by `factor` now and then and never falls below lr * min_lr_ratio."""

    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1

    def lr_after(self, step: int, num_decays: int) -> float:
        """lr of `step` after `num_decays` decays: lr * warm(step) * max(factor^n, min_lr_ratio)."""
        return self.lr * self.warm(step) * max(self.factor**num_decays, self.min_lr_ratio)

    def reaches_floor(self, num_decays: int) -> bool:
        """Whether factor^n <= min_lr_ratio as decimal numbers; a min_lr_ratio of 0 is never reached."""
        if self.min_lr_ratio == 0 or self.factor**num_decays > 1.000001 * self.min_lr_ratio:
            return False  # too far above for the rounding of floats to matter
        return EXACT.power(decimal(self.factor), num_decays) <= decimal(self.min_lr_ratio)


class Decay:
    """How often an lr has decayed, and whether it lies on its floor.

    >>> from actors.lr_policies import StepConfig
    >>> decay = Decay(StepConfig(period=1, factor=0.1, min_lr_ratio=0.001))
    >>> [decay.move_to(n) for n in (0, 1, 1, 3, 4)]
    [(), ('decay',), (), ('decay', 'floor'), ()]
    """

    def __init__(self, config: DecayConfig) -> None:
        self._config = config
        self.num_decays = 0
        self.on_floor = False

    def move_to(self, num_decays: int) -> tuple[str, ...]:
        """Decay up to `num_decays` in all and name the events: one `decay` however far, `floor` when it gets there."""
        if num_decays <= self.num_decays:
            return ()
        self.num_decays = num_decays
        if self.on_floor:
            return ()
        self.on_floor = self._config.reaches_floor(num_decays)
        return ("decay", "floor") if self.on_floor else ("decay",)

    def state_dict(self) -> dict[str, Any]:
        return {"num_decays": self.num_decays, "on_floor": self.on_floor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_decays = state["num_decays"]
        self.on_floor = state["on_floor"]
