"""What an experiment file says about a simulated run: how long the stand-ins take, and what they answer."""

import math
from typing import Literal

from pydantic import Field

from actors.settings import Count, Settings

Phase = Literal["start", "generate", "gradients", "apply", "publish"]


class Ramp(Settings):
    """A number that goes from one value to another as a run goes on, half of the way at step `middle`.

    Example:
        >>> ramp = Ramp(first=16, last=32, middle=30, width=10)
        >>> round(ramp.at(0), 1), ramp.at(30), round(ramp.at(60), 1)
        (16.0, 24.0, 32.0)
    """

    first: float = Field(ge=0, description="at the beginning")
    last: float = Field(ge=0, description="in the end")
    middle: float = Field(ge=0, description="step")
    width: float = Field(gt=0, description="steps that most of the way takes")

    def at(self, step: int) -> float:
        """The number at a step."""
        way = 0.5 * (1 + math.tanh(2 * (step - self.middle) / self.width))
        return self.first + (self.last - self.first) * way


class SecondsConfig(Settings):
    """The `simulation.seconds:` block: how long a stand-in takes for a call, in seconds.

    Example:
        >>> SecondsConfig(generate=2.0).gradients
        1.0
    """

    start: float = Field(0.1, ge=0, le=3600, description="for a rollout worker or a learner to come up")
    generate: float = Field(1.0, ge=0, le=3600, description="for a rollout worker to sample its share")
    gradients: float = Field(1.0, ge=0, le=3600, description="for a learner rank's forward and backward pass")
    apply: float = Field(0.1, ge=0, le=3600, description="for a learner rank's update")
    publish: float = Field(0.25, ge=0, le=3600, description="for rank 0 to bring the weights to all rollout workers")

    def of(self, phase: Phase) -> float:
        """Of that phase."""
        return float(getattr(self, phase))


class SimulationConfig(Settings):
    """The `simulation:` block: stand-ins take the places of engines and model; all else of the run is real.

    Example:
        >>> SimulationConfig(workers_per_process=4).seconds.generate
        1.0
    """

    workers_per_process: Count = Field(16, description="stand-ins of one role that share a process")
    seconds: SecondsConfig = SecondsConfig()
    jitter: float = Field(0.1, ge=0, le=1, description="a call takes up to this share more or less")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="of the jitter")
    response_tokens: Ramp = Field(
        Ramp(first=12.0, last=24.0, middle=30.0, width=20.0), description="median length of a response, by step"
    )
    spread: float = Field(0.3, ge=0, le=3, description="standard deviation of the logarithm of a response's length")
    correct: Ramp = Field(
        Ramp(first=0.3, last=0.8, middle=30.0, width=20.0), description="share of right answers to sums, by step"
    )
    mismatch: float = Field(0.002, ge=0, le=0.05, description="largest difference of engine's and learner's log-probs")
