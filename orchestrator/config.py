"""The experiment file: its schema, and how arms and `--set` change it before it is checked."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from actors.config import Dtype, LearnerConfig, ModelConfig, RolloutConfig
from actors.lr_policies import SchedulerConfig
from actors.misfit import Misfit
from actors.settings import Count, Settings
from cluster.config import ClusterConfig
from orchestrator.config_errors import MISSING, NAME, NAME_PATTERN, ConfigError, FieldRule, describe, one_of
from orchestrator.evaluation import EvaluationConfig
from orchestrator.metric_keys import signal_keys
from orchestrator.stability import StabilityConfig
from orchestrator.task_config import ArithmeticTaskConfig, TaskConfig
from orchestrator.yaml_files import parse_scalar, read_mapping

Tree = dict[str, Any]

DEFAULT_ARM = "default"
SMALLEST_GROUP = 2  # responses that can be better or worse than each other
# What belongs to the experiment as a whole; an arm that changed it would not be an arm of the same experiment.
NOT_IN_ARMS = ("name", "arms", "seeds", "tracking", "cluster")


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
    evaluation: EvaluationConfig | None = None
    record_rollouts: RecordRolloutsConfig | None = None
    export: ExportConfig | None = None
    checkpoint: CheckpointConfig | None = CheckpointConfig()
    stability: StabilityConfig = StabilityConfig()
    cluster: ClusterConfig = ClusterConfig()
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
    def _workers_are_of_one_kind(self) -> Self:
        if self.rollout.device != self.learner.device:
            raise FieldRule("learner.gpus_per_worker", "GPUs for the rollout workers and the learners, or for neither")
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
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise FieldRule("seeds", "seeds that differ from each other")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentFile:
    """An experiment file as written, checked together with all of its arms.

    Example:
        file = ExperimentFile.read("examples/demo.yaml", overrides=["steps=20"])
        file.arms()                 # ["baseline", "decay"]
        file.resolve("decay")       # the ExperimentConfig of that arm
    """

    path: str
    tree: Tree
    overrides: tuple[tuple[tuple[str, ...], Any], ...]  # (path, value) of each --set

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str] = ()) -> "ExperimentFile":
        """Read and check a file and every arm in it.

        Args:
            path: of a YAML file.
            overrides: `a.b=value` each; they win over the file and its arms.

        Raises:
            ConfigError: with file, field, value and what was expected.
        """
        return cls.of(str(path), read_mapping(path), overrides)

    @classmethod
    def of(cls, path: str, tree: Tree, overrides: Sequence[str] = ()) -> "ExperimentFile":
        """Check what a file holds; as `read`, which says the rest."""
        changes = [_parse_override(text) for text in overrides]
        for key_path, value in changes:
            if key_path[0] == "arms":
                set_value(tree, key_path, value)
        over_arms = tuple(change for change in changes if change[0][0] != "arms")
        file = cls(path=path, tree=tree, overrides=over_arms)
        as_written = replace(file, overrides=())
        for arm in file.arms() or [DEFAULT_ARM]:
            as_written.resolve(arm)
        return file

    def arms(self) -> list[str]:
        """Names of the arms, in the file's order; none when the file has no `arms`."""
        arms = {} if self.tree.get("arms") is None else self.tree["arms"]
        if not isinstance(arms, Mapping):
            raise ConfigError(self.path, "arms", arms, "a mapping from arm names to what they change")
        for name, changes in arms.items():
            if not isinstance(changes, Mapping):
                raise ConfigError(self.path, f"arms.{name}", changes, "a mapping of what the arm changes")
            if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
                raise ConfigError(self.path, "arms", name, NAME)
        return list(arms)

    def resolve(self, arm: str) -> ExperimentConfig:
        """The experiment with that arm and the overrides merged in; `default` is the file itself.

        Raises:
            ConfigError: no such arm, or the result is no valid experiment.
        """
        changes = self._changes(arm)
        tree = deepcopy({key: value for key, value in self.tree.items() if key != "arms"})
        tree = merge(tree, changes)
        for path, value in self.overrides:
            set_value(tree, path, value)
        try:
            return ExperimentConfig.model_validate(tree)
        except ValidationError as error:
            origin = f"arms.{arm}." if changes else ""
            raise describe(error, ExperimentConfig, tree, self.path, self._label(changes, origin)) from None

    def _changes(self, arm: str) -> Tree:
        arms = self.arms()
        if arm == DEFAULT_ARM and arm not in arms:
            return {}
        if arm not in arms:
            raise ConfigError(self.path, "arms", arm, f"one of: {', '.join(arms) or 'no arms in this file'}")
        changes: Tree = self.tree["arms"][arm]
        for key in changes:
            if key in NOT_IN_ARMS:
                raise ConfigError(self.path, f"arms.{arm}.{key}", changes[key], "something an arm may change")
        return changes

    def _label(self, changes: Tree, origin: str) -> Any:
        """How to name a field: with the arm or the --set that it came from."""

        def label(path: tuple[str, ...]) -> str:
            dotted = ".".join(path)
            if any(path[: len(changed)] == changed[: len(path)] for changed, _ in self.overrides):
                return f"--set {dotted}" + (
                    f" in arm {origin.removeprefix('arms.').removesuffix('.')}" if origin else ""
                )
            node: Any = changes
            for key in path:
                if not isinstance(node, Mapping) or key not in node:
                    return dotted
                node = node[key]
            return origin + dotted

        return label


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Tree:
    """`base` with `changes` laid over it, mapping by mapping; a mapping with another `kind` replaces, it is not merged.

    Example:
        >>> merge({"scheduler": {"kind": "step", "lr": 1.0}}, {"scheduler": {"kind": "constant", "lr": 2.0}})
        {'scheduler': {'kind': 'constant', 'lr': 2.0}}
    """
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        if (
            isinstance(below, Mapping)
            and isinstance(value, Mapping)
            and value.get("kind", below.get("kind")) == below.get("kind")
        ):
            merged[key] = merge(below, value)
        else:
            merged[key] = deepcopy(value)
    return merged


def _parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    name, equals, value = text.partition("=")
    path = tuple(name.strip().split("."))
    if not equals or not all(path):
        raise ConfigError("--set", text, MISSING, "KEY=VALUE with a dotted key, such as rollout.group_size=8")
    return path, parse_scalar(value, source=f"--set {name}")


def set_value(tree: Tree, path: Sequence[str], value: Any) -> None:
    """Put a value at a path of keys, as `--set` does.

    Raises:
        ConfigError: something on the way is no mapping.
    """
    node = tree
    for key in path[:-1]:
        below = node.setdefault(key, {})
        if not isinstance(below, dict):
            raise ConfigError("--set", ".".join(path), value, f"a key below {key!r}, which holds {below!r}")
        node = below
    node[path[-1]] = value
