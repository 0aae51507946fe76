"""What the linear and the cosine schedule share: how far the run has come after its warm-up, and where the lr ends."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from actors.lr_policies.base import PolicyConfig
from actors.misfit import Misfit
from actors.settings import Count


class AnnealConfig(PolicyConfig):
    """An lr that falls from lr to lr * min_lr_ratio between the end of the warm-up and `total_steps`."""

    total_steps: Count | None = None  # None: the length of the experiment
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _ends_after_the_warmup(self) -> Self:
        if self.total_steps is not None:
            self.resolved_total(None)
        return self

    def resolved_total(self, total_steps: int | None) -> int:
        """The step at which the lr has fallen all the way: the config's own, or else the argument.

        Raises:
            ValueError: neither is given.
            Misfit: the warm-up would leave no step to fall in.
        """
        total = total_steps if self.total_steps is None else self.total_steps
        if total is None:
            raise ValueError("total_steps is missing: the policy sets none and the experiment gives no steps")
        if self.warmup_steps >= total:
            raise Misfit("warmup_steps", self.warmup_steps, f"less than total_steps, which is {total}")
        return total

    def progress(self, step: int, total_steps: int) -> float:
        """p in [0, 1]: 0 up to the end of the warm-up, 1 from `total_steps` on."""
        done = (step - self.warmup_steps) / (total_steps - self.warmup_steps)
        return min(1.0, max(0.0, done))

    def annealed(self, step: int, height: float) -> float:
        """lr of `step`, `height` falling from 1 to 0; in a form that never rounds below lr * min_lr_ratio."""
        return self.lr * self.warm(step) * (self.min_lr_ratio + (1 - self.min_lr_ratio) * height)
