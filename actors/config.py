"""What an experiment file says about the model, the rollout workers and the learners."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from actors.corrections import CorrectionConfig, NoCorrection
from actors.misfit import Misfit
from actors.settings import Count, Settings

Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["auto", "sdpa", "flash_attention_2", "eager"]
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
    cpus_per_worker: float = Field(0.25, ge=0.001, description="logical CPUs reserved; the phases of a step take turns")
    gpus_per_worker: float = Field(0.0, ge=0)
    tensor_parallel_size: Count = Field(1, description="GPUs that one engine is split over")
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


class OffloadConfig(Settings):
    """The `learner.offload:` block: what a rank on a GPU keeps in host memory. On a CPU it changes nothing."""

    parameters: bool = Field(False, description="weights, gradient and optimizer state, but for what is being computed")
    optimizer: bool = Field(False, description="the optimizer's state, but for the time of an update")


class LearnerConfig(Settings):
    """The `learner:` block: how gradients are computed, and by how many FSDP2 ranks.

    Example:
        >>> LearnerConfig(workers=2).loss
        'token_mean'
    """

    workers: Workers = 1
    cpus_per_worker: float = Field(0.25, ge=0.001, description="logical CPUs reserved; the phases of a step take turns")
    gpus_per_worker: float = Field(0.0, ge=0)
    workers_per_node: Count | None = Field(
        None, description="ranks that one node must hold together; null lets each rank be anywhere"
    )
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
    attention: Attention = Field("auto", description="auto: flash_attention_2 where it can be had, else sdpa")
    activation_checkpointing: bool = Field(False, description="compute a layer's activations once more in backward")
    compile: bool = Field(False, description="fuse a decoder layer's operations with torch.compile")
    offload: OffloadConfig = OffloadConfig()

    @model_validator(mode="after")
    def _flash_attention_can_run(self) -> Self:
        if self.attention == "flash_attention_2" and (self.device == "cpu" or self.dtype == "float32"):
            raise Misfit("attention", self.attention, "another one: that needs a GPU, and bfloat16 or float16 as dtype")
        return self

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where a rank runs: on a GPU exactly when it asks for one."""
        return "cuda" if self.gpus_per_worker > 0 else "cpu"

    def counted(self, num_tokens: int, num_sequences: int) -> int:
        """What of a step the loss's denominator grows with: tokens under `token_mean`, else sequences."""
        return num_tokens if self.loss == "token_mean" else num_sequences
