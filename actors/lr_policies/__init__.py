"""Learning-rate policies: pure state machines that see a step's metrics and decide that step's learning rate."""

from typing import Annotated

from pydantic import Field

from actors.lr_policies.base import LrDecision, LrPolicy, PolicyConfig
from actors.lr_policies.constant import ConstantConfig, ConstantPolicy
from actors.lr_policies.cosine import CosineConfig, CosinePolicy
from actors.lr_policies.length_triggered import LengthTriggeredConfig, LengthTriggeredPolicy
from actors.lr_policies.linear import LinearConfig, LinearPolicy
from actors.lr_policies.signal_triggered import SignalTriggeredConfig, SignalTriggeredPolicy
from actors.lr_policies.step import StepConfig, StepPolicy

SchedulerConfig = Annotated[
    ConstantConfig | LinearConfig | CosineConfig | StepConfig | LengthTriggeredConfig | SignalTriggeredConfig,
    Field(discriminator="kind"),
]

__all__ = [
    "ConstantConfig",
    "ConstantPolicy",
    "CosineConfig",
    "CosinePolicy",
    "LengthTriggeredConfig",
    "LengthTriggeredPolicy",
    "LinearConfig",
    "LinearPolicy",
    "LrDecision",
    "LrPolicy",
    "PolicyConfig",
    "SchedulerConfig",
    "SignalTriggeredConfig",
    "SignalTriggeredPolicy",
    "StepConfig",
    "StepPolicy",
]
