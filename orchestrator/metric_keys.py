"""The metrics that a run knows when the learning rate of a step is decided: what a policy can look at."""

from actors.config import LearnerConfig
from actors.statistics import MismatchSums
from orchestrator.evaluation import EvaluationConfig

BATCH = (
    "reward/mean",
    "reward/score_mean",
    "reward/errors",
    "response/length_mean",
    "response/length_max",
    "response/length_min",
    "response/length_mean_kept",
    "response/clip_ratio",
    "sampling/rounds",
    "sampling/groups",
    "sampling/groups_kept",
    "sampling/flat_right",
    "sampling/flat_wrong",
    "sampling/prompts_dropped",
    "sampling/tokens",
    "sampling/tokens_dropped",
    "sampling/empty_steps",
)
OF_A_TOKEN = MismatchSums(tokens=1, sequences=1, ratio=1.0, ratio_squared=1.0)
MISMATCH = tuple(f"mismatch/{key}" for key in OF_A_TOKEN.metrics())
POLICY = ("policy/entropy", "policy/loss")
GRADIENT = ("gradient/norm", "gradient/norm_smoothed", "gradient/clipped", "gradient/nonfinite")
NOISE = ("gradient/signal", "gradient/noise", "gradient/noise_scale")
CORRECTION = tuple(f"correction/{key}" for key in ("tokens_kept", "sequences_kept", "weight_mean", "weight_max", "ess"))


def signal_keys(
    learner: LearnerConfig, evaluation: EvaluationConfig | None, prompts_per_step: int = 2
) -> tuple[str, ...]:
    """The keys that a run logs before it decides; time/*, throughput/* and what the update did come after that.

    Example:
        >>> "gradient/noise_scale" in signal_keys(LearnerConfig(), evaluation=None)
        True
        >>> "gradient/noise_scale" in signal_keys(LearnerConfig(), evaluation=None, prompts_per_step=1)
        False
    """
    keys = [*BATCH, *MISMATCH, *POLICY, *GRADIENT]
    if learner.gradient_noise.every is not None and prompts_per_step > 1:  # there are two halves
        keys += NOISE
    if learner.correction.kind != "none":
        keys += CORRECTION
    if evaluation is not None:
        keys += evaluation.keys()
    return tuple(keys)
