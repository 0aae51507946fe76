"""The central scheduler: merges what all learner ranks measured and decides the learning rate of the step."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from actors.config import LearnerConfig
from actors.ema import Ema
from actors.gradient_noise import NoiseScale, two_halves
from actors.lr_policies import LrPolicy
from actors.messages import GradientReport, StepDecision

NORM_SMOOTHING = 0.05


class Scheduler:
    """One per run. The policy decides; this class only hands it the exactly merged metrics of the step.

    order = scheduler.decide(step, reports, {"response/length_mean": 31.5}, num_prompts=16)
    learners.broadcast(Learner.apply, order)
    """

    def __init__(self, policy: LrPolicy, config: LearnerConfig, shadows: Mapping[str, LrPolicy] | None = None) -> None:
        """Define the scheduler.

        Args:
            policy: the one whose learning rate is applied.
            config: of the learners, for how losses are divided and gradients clipped.
            shadows: policies by name that only log what they would have done.
        """
        self._policy = policy
        self._config = config
        self._shadows = dict(shadows or {})
        self._norm_smoothed = Ema(NORM_SMOOTHING)
        self._noise_scale = NoiseScale()

    def decide(
        self, step: int, reports: Sequence[GradientReport], metrics: Mapping[str, float], num_prompts: int
    ) -> StepDecision:
        """Merge the reports, add their metrics to `metrics`, and ask the policy.

        Args:
            step: number of the step; must grow from call to call.
            reports: one per learner rank; none at all when the step had nothing to learn from.
            metrics: what the driver already knows of this step (lengths, rewards).
            num_prompts: that the step trains on.
        """
        merged = GradientReport().merge(*reports)
        regain = self._regain(merged)
        empty = regain is None
        measured = {**metrics, "sampling/empty_steps": float(empty), **self._correction_metrics(merged)}
        if regain is not None:
            measured |= _mismatch_metrics(merged) | self._gradient_metrics(merged, regain, num_prompts)
        decision = self._policy.observe(step, measured)
        norm = measured.get("gradient/norm")
        logged = {"scheduler/lr": decision.lr, **{f"scheduler/event/{event}": 1.0 for event in decision.events}}
        return StepDecision(
            decision=decision,
            grad_scale=1.0 if norm is None or regain is None else regain * self._clip_scale(norm),
            update=norm is not None,
            metrics={**measured, **logged, **self._shadow_metrics(step, measured)},
        )

    def _regain(self, merged: GradientReport) -> float | None:
        """What the sequences that a correction dropped have left undivided; None when nothing is left to learn from."""
        sums = merged.correction
        kept = self._config.counted(sums.tokens_counted, sums.sequences_kept)
        return self._config.counted(sums.tokens, sums.sequences) / kept if kept else None

    def _gradient_metrics(self, merged: GradientReport, regain: float, num_prompts: int) -> dict[str, float]:
        if merged.nonfinite:
            return {"gradient/nonfinite": float(merged.nonfinite), "gradient/clipped": 0.0}
        norm = regain * math.sqrt(merged.grad_square_sum)
        return {
            "gradient/norm": norm,
            "gradient/norm_smoothed": self._norm_smoothed.update(norm),
            "gradient/clipped": float(norm > self._config.grad_clip),
            "gradient/nonfinite": 0.0,
            "policy/loss": regain * merged.loss,
            **self._noise_metrics(merged, num_prompts),
        }

    def _noise_metrics(self, merged: GradientReport, num_prompts: int) -> dict[str, float]:
        sums, halves = merged.correction, merged.halves
        whole = self._config.counted(sums.tokens, sums.sequences)
        kept = self._config.counted(sums.tokens_counted, sums.sequences_kept)
        first = self._config.counted(halves.first_tokens, halves.first_sequences)
        estimate = two_halves(halves, (first / whole, (kept - first) / whole), num_prompts)
        if estimate is None:
            return {}
        signal, noise = estimate
        scale = self._noise_scale.observe(signal, noise)
        return {
            "gradient/signal": signal,
            "gradient/noise": noise,
            **({} if scale is None else {"gradient/noise_scale": scale}),
        }

    def _correction_metrics(self, merged: GradientReport) -> dict[str, float]:
        if self._config.correction.kind == "none":
            return {}
        return {f"correction/{key}": value for key, value in merged.correction.metrics().items()}

    def _shadow_metrics(self, step: int, measured: Mapping[str, float]) -> dict[str, float]:
        logged: dict[str, float] = {}
        for name, policy in self._shadows.items():
            decision = policy.observe(step, measured)
            logged[f"scheduler/shadow/{name}/lr"] = decision.lr
            logged |= {f"scheduler/shadow/{name}/event/{event}": 1.0 for event in decision.events}
        return logged

    def _clip_scale(self, norm: float) -> float:
        return min(1.0, self._config.grad_clip / (norm + 1e-6))

    def state_dict(self) -> dict[str, Any]:
        """All that later decisions depend on, fit for JSON."""
        return {
            "policy": self._policy.state_dict(),
            "shadows": {name: policy.state_dict() for name, policy in self._shadows.items()},
            "norm_smoothed": self._norm_smoothed.value,
            "noise_scale": self._noise_scale.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._policy.load_state_dict(state["policy"])
        for name, policy in self._shadows.items():
            policy.load_state_dict(state["shadows"][name])
        self._norm_smoothed.value = state["norm_smoothed"]
        self._noise_scale.load_state_dict(state["noise_scale"])


def _mismatch_metrics(merged: GradientReport) -> dict[str, float]:
    measured = {f"mismatch/{key}": value for key, value in merged.mismatch.metrics().items()}
    if merged.mismatch.tokens:
        measured["policy/entropy"] = merged.entropy_sum / merged.mismatch.tokens
    return measured
