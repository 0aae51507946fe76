"""What an experiment is: the schema of its file, block by block."""

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from actors.config import Dtype, LearnerConfig, ModelConfig, RolloutConfig
from actors.lr_policies import SchedulerConfig
from actors.misfit import Misfit
from actors.settings import Count, Settings
from actors.simulated.config import SimulationConfig
from cluster.config import ClusterConfig
from orchestrator.config_errors import NAME_PATTERN, FieldRule, one_of
from orchestrator.evaluation import EvaluationConfig
from orchestrator.metric_keys import signal_keys
from orchestrator.placeable import check_placeable
from orchestrator.stability import StabilityConfig
from orchestrator.storage_uri import mistake_in
from orchestrator.task_config import ArithmeticTaskConfig, TaskConfig

SMALLEST_GROUP = 2  # responses that can be better or worse than each other


class TrackingConfig(Settings):
    """The `tracking:` block: where MLflow keeps runs.

    Example:
        >>> TrackingConfig().uri is None
        True
    """

    uri: str | None = Field(None, description="MLflow tracking URI; null is a sqlite file beside the runs")
    experiment: str | None = Field(None, description="MLflow experiment; null takes the experiment file's name")


class RecordRolloutsConfig(Settings):
    """The `record_rollouts:` block: which steps leave all their rollouts in a file, and with them all evaluations.

    Example:
        >>> RecordRolloutsConfig(every=10).every
        10
    """

    every: Count


class ExportConfig(Settings):
    """The `export:` block: the trained policy as a Hugging Face folder, `model` in the run's.

    Example:
        >>> ExportConfig().dtype
        'float32'
    """

    dtype: Dtype = Field("float32", description="of the weights in the files")
    mlflow: bool = Field(False, description="also keep it with the MLflow run")


class CheckpointConfig(Settings):
    """The `checkpoint:` block: when a run saves all that it needs to go on, and how much of that it keeps.

    Example:
        >>> CheckpointConfig(every=20).keep
        3
    """

    every: Count = Field(100, description="steps from one to the next; the last step of a run makes one, too")
    keep: Count = Field(3, description="the newest so many stay")
    storage: str | None = Field(None, description="folder or URI that all learners reach; null is beside the run")

    @field_validator("storage")
    @classmethod
    def _is_a_place(cls, storage: str | None) -> str | None:
        if storage is not None and (expected := mistake_in(storage)):
            raise ValueError(expected)
        return storage

    def due(self, step: int, last: int) -> bool:
        """Whether one is made after step `step` of a run that ends with step `last`."""
        return (step + 1) % self.every == 0 or step == last


class ExperimentConfig(Settings):
    """A whole experiment, or one arm of it when `arms` has been merged in."""

    name: str = Field(pattern=NAME_PATTERN)
    model: ModelConfig
    task: TaskConfig
    rollout: RolloutConfig
    learner: LearnerConfig = LearnerConfig()
    scheduler: SchedulerConfig
    shadow: dict[Annotated[str, Field(pattern=NAME_PATTERN)], SchedulerConfig] = Field(
        default_factory=dict, description="policies that only log"
    )
    steps: Count
    max_staleness: int = Field(
        0, ge=0, le=1, description="1: the next batch is sampled from the weights of this step, while it is learnt from"
    )
    evaluation: EvaluationConfig | None = None
    record_rollouts: RecordRolloutsConfig | None = None
    export: ExportConfig | None = None
    checkpoint: CheckpointConfig | None = CheckpointConfig()
    stability: StabilityConfig = StabilityConfig()
    cluster: ClusterConfig = ClusterConfig()
    simulation: SimulationConfig | None = None
    tracking: TrackingConfig = TrackingConfig()
    arms: dict[str, dict[str, Any]] = Field(default_factory=dict)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default_factory=lambda: [0], min_length=1)

    @model_validator(mode="after")
    def _group_relative_advantage_needs_a_group(self) -> Self:
        if self.rollout.group_size < SMALLEST_GROUP:
            advantage = self.learner.advantage
            raise FieldRule("rollout.group_size", f"at least 2 responses per prompt for advantage {advantage!r}")
        return self

    @model_validator(mode="after")
    def _validation_is_on_files_where_training_is(self) -> Self:
        generated = isinstance(self.task, ArithmeticTaskConfig)
        if self.evaluation is None or generated == (not self.evaluation.sets):
            return self
        expected = (
            "no files: this task holds problems out itself" if generated else "at least one set: `name: file`, each"
        )
        raise FieldRule("evaluation.sets", expected)

    @model_validator(mode="after")
    def _over_long_responses_can_be_short(self) -> Self:
        overlong, limit = self.task.overlong, self.rollout.max_response_tokens
        if overlong is not None and overlong.buffer > limit:
            raise FieldRule("task.overlong.buffer", f"at most rollout.max_response_tokens: {limit}")
        return self

    @model_validator(mode="after")
    def _workers_can_be_placed(self) -> Self:
        check_placeable(self.rollout, self.learner, self.cluster)
        if self.max_staleness and self.cluster.colocate and self.rollout.device == "cuda":
            raise FieldRule("max_staleness", "0 with cluster.colocate: engines and learners take turns on the GPUs")
        return self

    @model_validator(mode="after")
    def _policies_can_be_built_and_see_what_they_look_at(self) -> Self:
        keys = signal_keys(self.learner, self.evaluation, self.rollout.prompts_per_step)
        blocks: dict[tuple[str, ...], SchedulerConfig] = {("scheduler",): self.scheduler}
        blocks |= {("shadow", name): shadow for name, shadow in self.shadow.items()}
        for block, policy in blocks.items():
            try:
                signals = policy.build(self.steps).signals
            except Misfit as misfit:
                raise FieldRule((*block, misfit.field), misfit.expected) from None
            for signal in set(signals) - set(keys):
                expected = "a metric that this run knows when it decides the rate"
                raise FieldRule((*block, "signal"), f"{expected}; {one_of(signal, keys)}")
        return self

    @model_validator(mode="after")
    def _stand_ins_have_no_model(self) -> Self:
        if self.simulation is None:
            return self
        if self.export is not None:
            raise FieldRule("export", "nothing in a simulated run, which has no model")
        if self.checkpoint is not None and self.checkpoint.storage is not None:
            raise FieldRule("checkpoint.storage", "null in a simulated run, whose stand-ins write to the run's folder")
        return self

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise FieldRule("seeds", "seeds that differ from each other")
        return self
