"""What an experiment file says about the model, the rollout workers and the learners."""

from typing import Annotated, Literal

from pydantic import Field

from actors.corrections import CorrectionConfig, NoCorrection
from actors.settings import Count, Settings

Dtype = Literal["float32", "bfloat16", "float16"]
LossKind = Literal["token_mean", "sequence_mean", "constant"]
AdvantageKind = Literal["grpo", "dr_grpo", "rloo", "optimal_token_baseline"]
Workers = Annotated[int, Field(ge=1, le=65_536)]
Beta = Annotated[float, Field(ge=0, lt=1, strict=True)]


class ModelConfig(Settings):
    """The `model:` block. `path` is a folder, a hub name, or `embedded` for the tiny model that ships with Evenkeel."""

    path: str = Field(min_length=1)


class RolloutConfig(Settings):
    """The `rollout:` block: how responses are sampled, and by how many vLLM engines.

    Example:
        >>> RolloutConfig(prompts_per_step=16, group_size=8, max_response_tokens=64).workers
        1
    """

    workers: Workers = 1
    cpus_per_worker: float = Field(0.25, ge=0.01, description="logical CPUs reserved; the phases of a step take turns")
    gpus_per_worker: float = Field(0.0, ge=0)
    prompts_per_step: Count
    group_size: Count = Field(description="responses per prompt")
    max_prompt_tokens: Count = 1024
    max_response_tokens: Count
    temperature: float = Field(1.0, ge=0.01, description="vLLM would silently raise anything smaller to 0.01")
    dtype: Dtype = "bfloat16"
    filter_flat_groups: bool = Field(False, description="drop groups whose scores are all equal and sample more")
    max_rounds: Count = Field(4, description="sampling rounds per step when groups are dropped")
    max_concurrent: Count = Field(256, description="sequences an engine works on at once")
    kv_cache_gib: Count = Field(1, description="memory for the KV cache of a CPU engine")
    quantize: Literal["int8", "fp8"] | None = Field(
        None, description="round the linear layers' weights through this on their way to the engine"
    )
    gpu_memory_utilization: float = Field(0.85, gt=0, le=1, description="share of the GPU an engine may take")

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where the engine runs: on a GPU exactly when it asks for one."""
        return "cuda" if self.gpus_per_worker > 0 else "cpu"


class OptimizerConfig(Settings):
    """The `learner.optimizer:` block. There is no learning rate here: the scheduler decides it anew at every step."""

    kind: Literal["adamw"] = "adamw"
    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)


class GradientNoiseConfig(Settings):
    """The `learner.gradient_noise:` block: when the two-halves estimate is made."""

    every: Count | None = Field(1, description="at the steps that this divides; null never")

    def due(self, step: int) -> bool:
        """Whether step `step` makes the estimate."""
        return self.every is not None and step % self.every == 0


class LearnerConfig(Settings):
    """The `learner:` block: how gradients are computed, and by how many FSDP2 ranks.

    Example:
        >>> LearnerConfig(workers=2).loss
        'token_mean'
    """

    workers: Workers = 1
    cpus_per_worker: float = Field(0.25, ge=0.01, description="logical CPUs reserved; the phases of a step take turns")
    gpus_per_worker: float = Field(0.0, ge=0)
    dtype: Dtype = Field("float32", description="of the forward and backward pass; weights and sums stay float32")
    tokens_per_microbatch: Count = Field(8192, description="prompt and response tokens, padding included")
    logits_chunk_mib: Count = Field(64, description="largest piece of the [tokens, vocabulary] logits ever held")
    grad_clip: float = Field(1.0, gt=0)
    advantage: AdvantageKind = "grpo"
    loss: LossKind = "token_mean"
    clip_ratio_low: float = Field(
        0.2, gt=0, le=1, description="of the surrogate; the ratio is 1 with one update a batch"
    )
    clip_ratio_high: float = Field(0.28, gt=0, description="likewise")
    correction: CorrectionConfig = NoCorrection()
    gradient_noise: GradientNoiseConfig = GradientNoiseConfig()
    optimizer: OptimizerConfig = OptimizerConfig()

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where a rank runs: on a GPU exactly when it asks for one."""
        return "cuda" if self.gpus_per_worker > 0 else "cpu"

    def counted(self, num_tokens: int, num_sequences: int) -> int:
        """What of a step the loss's denominator grows with: tokens under `token_mean`, else sequences."""
        return num_tokens if self.loss == "token_mean" else num_sequences
