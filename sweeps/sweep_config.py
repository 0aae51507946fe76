"""The sweep file: its schema, and the rules between its own fields."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from actors.settings import Count, Settings
from orchestrator.config_errors import NAME_PATTERN, FieldRule, one_of
from orchestrator.experiment_file import NOT_IN_ARMS, Tree
from sweeps.objective import ConstraintConfig, ObjectiveConfig
from sweeps.space import Choice, Choices, CircularConditions, Dimension, exists, in_order

SCHEDULER = "scheduler."  # what paths begin with that change nothing before the policy decides
# What all trials have in common: their steps are compared, and shared by way of checkpoints.
NOT_IN_SPACE = (*NOT_IN_ARMS, "steps", "checkpoint")
# What the sweep file says itself.
NOT_IN_CHANGES = {"name": "the sweep's `name`", "seeds": "the sweep's `seeds`", "arms": "the sweep's `arm`"}


Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Trials = Annotated[int, Field(ge=0, le=2**31 - 1)]


class TpeConfig(Settings):
    """`sampler: {kind: tpe}`: Optuna's Tree-structured Parzen Estimator."""

    kind: Literal["tpe"] = "tpe"
    seed: Seed = 0
    startup_trials: Trials = Field(8, description="the first so many are drawn at random")


class RandomConfig(Settings):
    """`sampler: {kind: random}`: every trial drawn at random."""

    kind: Literal["random"]
    seed: Seed = 0


SamplerConfig = Annotated[TpeConfig | RandomConfig, Field(discriminator="kind")]


class NoPrunerConfig(Settings):
    """`pruner: {kind: none}`: no trial ends early for its values."""

    kind: Literal["none"] = "none"


class MedianPrunerConfig(Settings):
    """`pruner: {kind: median}`: a trial ends whose best value so far is worse than the median of those before it."""

    kind: Literal["median"]
    startup_trials: Trials = Field(4, description="so many are complete before any is pruned")
    warmup_steps: Trials = Field(0, description="no trial is pruned before this step")


class PercentilePrunerConfig(Settings):
    """`pruner: {kind: percentile}`: as `median`, for those outside of the best so many percent."""

    kind: Literal["percentile"]
    percentile: float = Field(25.0, ge=0, le=100, description="the share that goes on; 50 is `median`")
    startup_trials: Trials = Field(4, description="so many are complete before any is pruned")
    warmup_steps: Trials = Field(0, description="no trial is pruned before this step")


PrunerConfig = Annotated[NoPrunerConfig | MedianPrunerConfig | PercentilePrunerConfig, Field(discriminator="kind")]


class SharingConfig(Settings):
    """The `sharing:` block: whether trials go on from steps that others have run."""

    enabled: Literal["auto", True, False] = Field("auto", description="auto: where the space is below `scheduler` only")
    every: Count = Field(5, description="steps between two checkpoints that can be gone on from")
    forks_from: Literal["any", "baseline"] = Field("any", description="earlier trials as well, or the baseline only")


class SweepConfig(Settings):
    """A whole sweep file.

    Example:
        SweepConfig.model_validate({"name": "thresholds", "experiment": "demo.yaml", "trials": 16,
                                    "space": {"scheduler.ratio": {"kind": "float", "low": 1.2, "high": 3.0}},
                                    "objective": {"metric": "eval/held_out/avg@1"}})
    """

    name: str = Field(pattern=NAME_PATTERN)
    experiment: str = Field(min_length=1, description="the experiment file, seen from the sweep file")
    arm: str | None = Field(None, description="of the experiment; null takes the experiment without any")
    changes: Tree = Field(default_factory=dict, description="laid over the experiment")
    space: dict[str, Dimension] = Field(min_length=1)
    objective: ObjectiveConfig
    constraints: list[ConstraintConfig] = Field(default_factory=list)
    sampler: SamplerConfig = TpeConfig()
    pruner: PrunerConfig = NoPrunerConfig()
    prune_on_collapse: bool = True
    trials: Count
    seeds: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, description="null takes the experiment's", min_length=1
    )
    parallel: Count = 1
    storage: str | None = Field(None, description="a SQLAlchemy URL; null is a journal file beside the trials")
    enqueue: list[dict[str, Choice]] = Field(default_factory=list, description="parameters that are tried first")
    sharing: SharingConfig = SharingConfig()

    @property
    def shares(self) -> bool:
        """Whether trials share steps."""
        return self._beside_scheduler() is None if self.sharing.enabled == "auto" else self.sharing.enabled

    def _beside_scheduler(self) -> str | None:
        return next((path for path in self.space if not path.startswith(SCHEDULER)), None)

    @model_validator(mode="after")
    def _changes_and_space_stay_in_bounds(self) -> Self:
        for key, place in NOT_IN_CHANGES.items():
            if key in self.changes:
                raise FieldRule(("changes", key), f"something else: {place} says that")
        for path in self.space:
            if path.partition(".")[0] in NOT_IN_SPACE:
                raise FieldRule(
                    ("space", path), f"something in which trials may differ, none of {', '.join(NOT_IN_SPACE)}"
                )
        return self

    @model_validator(mode="after")
    def _conditions_can_hold(self) -> Self:
        for path, dimension in self.space.items():
            for other, allowed in dimension.when.items():
                place, condition = ("space", path, "when", other), self._known(("space", path, "when"), other)
                if not isinstance(condition, Choices):
                    raise FieldRule(place, "a value of a categorical path, which this is not")
                if not all(condition.contains(value) for value in allowed):
                    raise FieldRule(place, condition.expected())
        try:
            in_order(self.space)
        except CircularConditions as circle:
            raise FieldRule(("space", circle.path, "when"), "conditions that do not wait for each other") from None
        return self

    @model_validator(mode="after")
    def _what_is_enqueued_is_in_the_space(self) -> Self:
        if len(self.enqueue) > self.trials:
            raise FieldRule("trials", f"room for everything in enqueue: at least {len(self.enqueue)}")
        for i, params in enumerate(self.enqueue):
            for path, value in params.items():
                place, dimension = ("enqueue", str(i), path), self._known(("enqueue", str(i)), path)
                if not dimension.contains(value):
                    raise FieldRule(place, dimension.expected())
                unsaid = {other: allowed[0] for other, allowed in dimension.when.items()}
                if not exists(dimension, unsaid | params):
                    raise FieldRule(place, f"no value: there is none unless {dimension.conditions()}")
        return self

    def _known(self, place: tuple[str, ...], path: str) -> Dimension:
        """What is at a path that is named at a place."""
        if path not in self.space:
            raise FieldRule((*place, path), f"a path of the space; {one_of(path, [*self.space])}")
        return self.space[path]

    @model_validator(mode="after")
    def _constraints_and_seeds_differ(self) -> Self:
        names = [constraint.name for constraint in self.constraints]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise FieldRule(
                    ("constraints", str(i)), f"constraints that differ from each other: {name} stands twice"
                )
        if self.seeds is not None and len(set(self.seeds)) != len(self.seeds):
            raise FieldRule("seeds", "seeds that differ from each other")
        return self

    @model_validator(mode="after")
    def _only_what_the_scheduler_decides_is_shared(self) -> Self:
        path = self._beside_scheduler()
        if self.sharing.enabled is True and path is not None:
            raise FieldRule("sharing.enabled", f"auto or false: {path} can change steps before the scheduler decides")
        return self
