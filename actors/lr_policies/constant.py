"""The baseline arm: one learning rate from the end of the warm-up on."""

from typing import Literal

from actors.lr_policies.base import PolicyConfig
from actors.lr_policies.schedule import Schedule


class ConstantConfig(PolicyConfig):
    """`kind: constant`."""

    kind: Literal["constant"] = "constant"

    def build(self, total_steps: int | None) -> "ConstantPolicy":
        return ConstantPolicy(self)


class ConstantPolicy(Schedule):
    """lr * warm(t) (docs/method.md section 4).

    >>> policy = ConstantConfig(lr=2e-6, warmup_steps=2).build(total_steps=None)
    >>> [policy.observe(step, {}).lr for step in range(3)]
    [1e-06, 2e-06, 2e-06]
    """

    def __init__(self, config: ConstantConfig) -> None:
        super().__init__()
        self._config = config

    def lr_at(self, step: int) -> float:
        return self._config.lr * self._config.warm(step)
