"""What the scheduler's tests feed it: reports of ranks, and a policy that remembers what it saw."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actors.config import LearnerConfig
from actors.corrections import CorrectionSums
from actors.gradient_noise import HalfSums
from actors.lr_policies import ConstantConfig, LrDecision
from actors.messages import GradientReport, StepDecision
from actors.scheduler import Scheduler
from actors.statistics import MismatchSums


class RecordingPolicy:
    """Remembers what it was shown; the learning rate is the step number, or a multiple of it."""

    signals = ()

    def __init__(self, scale: float = 1.0, events: tuple[str, ...] = ()) -> None:
        self.seen: list[tuple[int, dict[str, float | None]]] = []
        self.scale = scale
        self.events = events

    def observe(self, step: int, metrics: Mapping[str, float | None]) -> LrDecision:
        self.seen.append((step, dict(metrics)))
        return LrDecision(step=step, lr=self.scale * step, events=self.events)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def report(
    square_sum: float = 4.0,
    *,
    nonfinite: int = 0,
    tokens: int = 2,
    loss: float = 0.5,
    entropy_sum: float = 3.0,
    correction: CorrectionSums | None = None,
    halves: HalfSums | None = None,
) -> GradientReport:
    """Of one rank with a single sequence, which no correction touched unless one is given."""
    rollout = -np.linspace(0.5, 1.5, tokens)
    untouched = CorrectionSums(
        tokens=tokens,
        tokens_kept=tokens,
        tokens_counted=tokens,
        sequences=1,
        sequences_kept=1,
        weight=float(tokens),
        weight_squared=float(tokens),
        weight_max=1.0,
    )
    return GradientReport(
        mismatch=MismatchSums.from_logprobs(rollout - 0.1, rollout, [tokens] if tokens else []),
        correction=untouched if correction is None else correction,
        halves=halves or HalfSums(),
        entropy_sum=entropy_sum,
        loss=loss,
        grad_square_sum=square_sum,
        nonfinite=nonfinite,
    )


def constant(grad_clip: float = 1.0, **learner: Any) -> Scheduler:
    """With a constant learning rate of 1e-3 and the given fields of the learner's block."""
    config = LearnerConfig.model_validate({"grad_clip": grad_clip, **learner})
    return Scheduler(ConstantConfig(lr=1e-3).build(total_steps=None), config)


def decide(
    scheduler: Scheduler, reports: Sequence[GradientReport], metrics: Mapping[str, float] | None = None, step: int = 0
) -> StepDecision:
    """The order for a step of four prompts."""
    return scheduler.decide(step, reports, metrics or {}, num_prompts=4)
