"""What a run is worth, and how far it is from what it must keep to: one number each, of its recorded steps."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from actors.settings import Count, Settings
from orchestrator.config import ExperimentConfig
from orchestrator.metric_keys import signal_keys

Aggregate = Literal["mean", "median", "min", "max"]
SpreadAggregate = Literal["mean", "median", "min", "max", "p5", "p50", "p95"]
Row = Mapping[str, float]  # of metrics.jsonl: `step` and the metrics of a step
COLLAPSED = "stability/collapsed"
EVENTS = ("surge", "decay", "floor")
TIMES = ("rollout", "score", "gradients", "decide", "apply", "publish", "record", "step", "ended_s")
# Logged as 1 at the steps where it happens and not at all at the others: there, it is 0.
HAPPENING = re.compile(rf"^({COLLAPSED}|scheduler/(shadow/[^/]+/)?event/[^/]+)$")
AGGREGATES: Mapping[SpreadAggregate, Callable[[Sequence[float]], float]] = {
    "mean": fmean,
    "median": median,
    "min": min,
    "max": max,
    "p5": lambda values: float(np.percentile(values, 5)),
    "p50": lambda values: float(np.percentile(values, 50)),
    "p95": lambda values: float(np.percentile(values, 95)),
}
UNKNOWN = 1.0  # of a constraint whose metric a run never had: it is not kept


class ObjectiveConfig(Settings):
    """The `objective:` block: what a run is worth.

    Example:
        >>> ObjectiveConfig(metric="eval/held_out/avg@4").direction
        'maximize'
    """

    metric: str = Field(min_length=1)
    last: Count | None = Field(3, description="the newest so many values of a run; null all")
    aggregate: Aggregate = "mean"
    direction: Literal["maximize", "minimize"] = "maximize"


class ConstraintConfig(Settings):
    """An entry of `constraints:`: what a run must keep to.

    Example:
        >>> ConstraintConfig(metric="mismatch/log_ppl_abs_diff", at_most=0.01).name
        'mismatch/log_ppl_abs_diff p95 <= 0.01'
    """

    metric: str = Field(min_length=1)
    aggregate: SpreadAggregate = "p95"
    last: Count | None = Field(None, description="the newest so many values of a run; null all")
    at_most: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("a constraint with either at_most or at_least")
        return self

    @property
    def name(self) -> str:
        """What stands for it in tables and at Optuna."""
        sign, bound = ("<=", self.at_most) if self.at_most is not None else (">=", self.at_least)
        return f"{self.metric} {self.aggregate} {sign} {bound}" + (f", last {self.last}" if self.last else "")


def metric_keys(config: ExperimentConfig) -> tuple[str, ...]:
    """All metrics that a run of the experiment can log: those known before it decides, and those that come after."""
    keys = [*signal_keys(config.learner, config.evaluation, config.rollout.prompts_per_step)]
    for policy in ("scheduler", *(f"scheduler/shadow/{name}" for name in config.shadow)):
        keys += [f"{policy}/lr", *(f"{policy}/event/{event}" for event in EVENTS)]
    times = (*TIMES, *([] if config.evaluation is None else ["evaluate"]))
    keys += ["gradient/update_norm_ratio", COLLAPSED, *(f"time/{name}" for name in times), "throughput/tokens_per_s"]
    return tuple(keys)


def values_of(rows: Sequence[Row], metric: str) -> list[float | None]:
    """What each row of a run has of a metric; None where it has nothing."""
    absent = 0.0 if HAPPENING.match(metric) else None
    return [row.get(metric, absent) for row in rows]


def aggregate(values: Sequence[float | None], how: SpreadAggregate, last: int | None = None) -> float | None:
    """One number out of many; None when none of them is finite.

    Args:
        values: [N], in their order; None, NaN and infinities do not count.
        how: to make one of them; percentiles are interpolated.
        last: how many of the last ones that count are taken; None all.

    >>> aggregate([0.1, 0.5, None, 0.3], "mean", last=2)
    0.4
    """
    present = [value for value in values if value is not None and math.isfinite(value)]
    taken = present if last is None else present[-last:]
    return float(AGGREGATES[how](taken)) if taken else None


def objective_value(objective: ObjectiveConfig, rows: Sequence[Row]) -> float | None:
    """What a run is worth; None when it never had the metric."""
    return aggregate(values_of(rows, objective.metric), objective.aggregate, objective.last)


def constraint_value(constraint: ConstraintConfig, rows: Sequence[Row]) -> float | None:
    """How far a run is beyond the bound, in the metric's unit: kept when <= 0; None when it never had the metric.

    >>> constraint_value(ConstraintConfig(metric="reward/mean", aggregate="min", at_least=0.5), [{"reward/mean": 0.75}])
    -0.25
    """
    value = aggregate(values_of(rows, constraint.metric), constraint.aggregate, constraint.last)
    if value is None:
        return None
    if constraint.at_most is not None:
        return value - constraint.at_most
    return (constraint.at_least or 0.0) - value


def constraint_values(constraints: Sequence[ConstraintConfig], runs: Sequence[Sequence[Row]]) -> dict[str, float]:
    """Those of a trial, by name: of its runs, one per seed, that of the worst."""
    return {
        constraint.name: max(_or_unknown(constraint_value(constraint, rows)) for rows in runs)
        for constraint in constraints
    }


def _or_unknown(value: float | None) -> float:
    return UNKNOWN if value is None else value
