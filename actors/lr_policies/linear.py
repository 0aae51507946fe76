"""A straight line from the learning rate down to its floor."""

from typing import Literal

from actors.lr_policies.anneal import AnnealConfig
from actors.lr_policies.schedule import Schedule


class LinearConfig(AnnealConfig):
    """`kind: linear`."""

    kind: Literal["linear"] = "linear"

    def build(self, total_steps: int | None) -> "LinearPolicy":
        """ValueError when neither the config nor the argument says how long the run is."""
        return LinearPolicy(self, self.resolved_total(total_steps))


class LinearPolicy(Schedule):
    """lr * (1 - (1 - m) * p) after the warm-up, p the fraction done, m = min_lr_ratio (docs/method.md section 4).

    >>> policy = LinearConfig(lr=2e-6, min_lr_ratio=0.5).build(total_steps=4)
    >>> [policy.observe(step, {}).lr for step in (0, 2, 4, 5)]
    [2e-06, 1.5e-06, 1e-06, 1e-06]
    """

    def __init__(self, config: LinearConfig, total_steps: int) -> None:
        super().__init__()
        self._config = config
        self._total_steps = total_steps

    def lr_at(self, step: int) -> float:
        return self._config.annealed(step, height=1 - self._config.progress(step, self._total_steps))
