"""Half a cosine wave from the learning rate down to its floor."""

import math
from typing import Literal

from actors.lr_policies.anneal import AnnealConfig
from actors.lr_policies.schedule import Schedule


class CosineConfig(AnnealConfig):
    """`kind: cosine`."""

    kind: Literal["cosine"] = "cosine"

    def build(self, total_steps: int | None) -> "CosinePolicy":
        """ValueError when neither the config nor the argument says how long the run is."""
        return CosinePolicy(self, self.resolved_total(total_steps))


class CosinePolicy(Schedule):
    """lr * (m + (1 - m) * (1 + cos(pi * p)) / 2) after the warm-up, m = min_lr_ratio (docs/method.md section 4).

    >>> policy = CosineConfig(lr=2e-6).build(total_steps=4)
    >>> [f"{policy.observe(step, {}).lr:.2e}" for step in (0, 2, 4, 5)]
    ['2.00e-06', '1.00e-06', '0.00e+00', '0.00e+00']
    """

    def __init__(self, config: CosineConfig, total_steps: int) -> None:
        super().__init__()
        self._config = config
        self._total_steps = total_steps

    def lr_at(self, step: int) -> float:
        progress = self._config.progress(step, self._total_steps)
        return self._config.annealed(step, height=(1 + math.cos(math.pi * progress)) / 2)
