"""The central scheduler: merges what all learner ranks measured and decides the learning rate of the step."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from actors.lr_policies import LrPolicy
from actors.messages import GradientReport, StepDecision

NORM_SMOOTHING = 0.05


class Scheduler:
    """One per run. The policy decides; this class only hands it the exactly merged metrics of the step.

    order = scheduler.decide(step, reports, {"response/length_mean": 31.5})
    learners.broadcast(Learner.apply, order)
    """

    def __init__(self, policy: LrPolicy, grad_clip: float) -> None:
        self._policy = policy
        self._grad_clip = grad_clip
        self._norm_smoothed: float | None = None

    def decide(self, step: int, reports: Sequence[GradientReport], metrics: Mapping[str, float]) -> StepDecision:
        """Merge the reports, add their metrics to `metrics`, and ask the policy.

        Args:
            step: number of the step; must grow from call to call.
            reports: one per learner rank; none at all when the step had nothing to learn from.
            metrics: what the driver already knows of this step (lengths, rewards).
        """
        merged = GradientReport.merge(reports)
        measured = {**metrics, **_mismatch_metrics(merged), **self._gradient_metrics(merged, bool(reports))}
        decision = self._policy.observe(step, measured)
        norm = measured.get("gradient/norm")
        measured["scheduler/lr"] = decision.lr
        measured.update({f"scheduler/event/{event}": 1.0 for event in decision.events})
        return StepDecision(
            decision=decision,
            clip_scale=1.0 if norm is None else self._clip_scale(norm),
            update=norm is not None,
            metrics=measured,
        )

    def _gradient_metrics(self, merged: GradientReport, learned: bool) -> dict[str, float]:
        if not learned:
            return {}
        if merged.nonfinite:
            return {"gradient/nonfinite": float(merged.nonfinite), "gradient/clipped": 0.0}
        norm = math.sqrt(merged.grad_square_sum)
        before = self._norm_smoothed
        self._norm_smoothed = norm if before is None else NORM_SMOOTHING * norm + (1 - NORM_SMOOTHING) * before
        return {
            "gradient/norm": norm,
            "gradient/norm_smoothed": self._norm_smoothed,
            "gradient/clipped": float(norm > self._grad_clip),
            "gradient/nonfinite": 0.0,
            "policy/loss": merged.loss,
        }

    def _clip_scale(self, norm: float) -> float:
        return min(1.0, self._grad_clip / (norm + 1e-6))

    def state_dict(self) -> dict[str, Any]:
        """All that later decisions depend on, fit for JSON."""
        return {"policy": self._policy.state_dict(), "norm_smoothed": self._norm_smoothed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._policy.load_state_dict(state["policy"])
        self._norm_smoothed = state["norm_smoothed"]


def _mismatch_metrics(merged: GradientReport) -> dict[str, float]:
    measured = {f"mismatch/{key}": value for key, value in merged.mismatch.metrics().items()}
    if merged.mismatch.tokens:
        measured["policy/entropy"] = merged.entropy_sum / merged.mismatch.tokens
    return measured
