"""What a run is worth: aggregates of what was recorded, and all metrics that a run can have recorded."""

import doctest
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.clock import PhaseClock
from orchestrator.experiment_file import ExperimentFile
from orchestrator.metric_keys import signal_keys
from sweeps import objective
from sweeps.objective import (
    AGGREGATES,
    UNKNOWN,
    ConstraintConfig,
    ObjectiveConfig,
    aggregate,
    constraint_value,
    constraint_values,
    metric_keys,
    objective_value,
)

DEMO = Path(__file__).parents[2] / "examples" / "demo.yaml"
finite = st.floats(-1e6, 1e6)
# What a run of the decay arm of the demo has in metrics.jsonl beside what a policy may look at.
RECORDED_AFTERWARDS = {
    "gradient/update_norm_ratio",
    "scheduler/event/decay",
    "scheduler/event/floor",
    "scheduler/event/surge",
    "scheduler/lr",
    "stability/collapsed",
    "throughput/tokens_per_s",
    "time/apply",
    "time/decide",
    "time/ended_s",
    "time/evaluate",
    "time/gradients",
    "time/publish",
    "time/record",
    "time/rollout",
    "time/score",
    "time/step",
}


@given(st.lists(finite, min_size=1), st.integers(1, 5), st.sampled_from([*AGGREGATES]))
def test_only_the_last_values_count(values: list[float], last: int, how: objective.SpreadAggregate) -> None:
    assert aggregate(values, how, last) == aggregate(values[-last:], how)


@given(st.lists(finite | st.sampled_from([None, math.nan, math.inf]), min_size=1), st.none() | st.integers(1, 5))
def test_what_is_absent_or_not_finite_does_not_count(values: list[float | None], last: int | None) -> None:
    present = [value for value in values if value is not None and math.isfinite(value)]
    for how in AGGREGATES:
        assert aggregate(values, how, last) == aggregate(present, how, last)


@given(st.lists(finite, min_size=1))
def test_aggregates_are_what_they_are_called(values: list[float]) -> None:
    assert aggregate(values, "mean") == pytest.approx(np.mean(values), rel=1e-9, abs=1e-6)
    assert aggregate(values, "median") == statistics.median(values)
    assert aggregate(values, "p50") == pytest.approx(statistics.median(values), rel=1e-9, abs=1e-6)
    assert aggregate(values, "min") == min(values)
    assert aggregate(values, "max") == max(values)
    assert aggregate(values, "p5") == np.percentile(values, 5)
    assert aggregate(values, "p95") == np.percentile(values, 95)


@pytest.mark.parametrize("values", [[], [None], [math.nan, math.inf]])
def test_nothing_has_no_aggregate(values: list[float | None]) -> None:
    assert [aggregate(values, how, last) for how in AGGREGATES for last in (None, 1)] == [None] * 14


def test_an_objective_is_over_the_last_evaluations_wherever_they_are() -> None:
    config = ObjectiveConfig(metric="eval/held_out/avg@4", last=2)
    rows = [{"step": 0.0, "eval/held_out/avg@4": 0.1}, {"step": 1.0}, {"step": 2.0, "eval/held_out/avg@4": 0.5}]
    rows += [{"step": 3.0, "eval/held_out/avg@4": 0.7}, {"step": 4.0}]
    assert objective_value(config, rows) == pytest.approx(0.6)
    assert objective_value(config, rows[1:2]) is None
    assert objective_value(config, []) is None


def test_a_constraint_is_kept_up_to_its_bound() -> None:
    at_most = ConstraintConfig(metric="m", aggregate="max", at_most=0.5)
    at_least = ConstraintConfig(metric="m", aggregate="min", at_least=0.25)
    for value, beyond_most, beyond_least in [(0.5, 0.0, -0.25), (0.75, 0.25, -0.5), (0.125, -0.375, 0.125)]:
        assert constraint_value(at_most, [{"m": value}]) == beyond_most
        assert constraint_value(at_least, [{"m": value}]) == beyond_least
    assert constraint_value(at_most, [{"n": 1.0}]) is None


@pytest.mark.parametrize(
    "metric", ["stability/collapsed", "scheduler/event/floor", "scheduler/shadow/late/event/decay"]
)
def test_what_did_not_happen_is_zero(metric: str) -> None:
    never = ConstraintConfig(metric=metric, aggregate="max", at_most=0)
    assert constraint_value(never, [{"reward/mean": 1.0}, {}]) == 0
    assert constraint_value(never, [{}, {metric: 1.0}, {}]) == 1
    assert constraint_value(never, []) is None


def test_of_the_seeds_of_a_trial_the_worst_says_whether_a_constraint_is_kept() -> None:
    low = ConstraintConfig(metric="m", aggregate="mean", at_most=1.0)
    assert constraint_values([low], [[{"m": 0.5}], [{"m": 4.0}], [{"m": 1.0}]]) == {"m mean <= 1.0": 3.0}
    assert constraint_values([low], [[{"m": 0.0}], []]) == {"m mean <= 1.0": UNKNOWN}
    assert constraint_values([], [[{"m": 0.0}]]) == {}
    assert UNKNOWN > 0


def test_constraints_have_names_that_tell_them_apart() -> None:
    same = {"metric": "reward/mean", "aggregate": "p5"}
    constraints = [
        ConstraintConfig.model_validate({**same, **more})
        for more in ({"at_least": 0.5}, {"at_most": 0.5}, {"at_least": 0.51}, {"at_least": 0.5, "last": 3})
    ]
    assert constraints[0].name == "reward/mean p5 >= 0.5"
    assert constraints[3].name == "reward/mean p5 >= 0.5, last 3"
    assert len({constraint.name for constraint in constraints}) == 4


@pytest.mark.parametrize("bounds", [{}, {"at_most": 1.0, "at_least": 0.5}])
def test_a_constraint_has_one_bound(bounds: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="either at_most or at_least"):
        ConstraintConfig.model_validate({"metric": "m", **bounds})


def test_a_run_can_log_what_was_known_and_what_came_after() -> None:
    config = ExperimentFile.read(DEMO).resolve("decay")
    before = signal_keys(config.learner, config.evaluation, config.rollout.prompts_per_step)
    keys = metric_keys(config)
    assert len(keys) == len(set(keys))
    assert set(keys) == {*before, *RECORDED_AFTERWARDS}


def test_the_keys_follow_the_experiment() -> None:
    shadow = "shadow={late: {kind: step, period: 9}}"
    config = ExperimentFile.read(DEMO, ["evaluation=null", shadow]).resolve("decay")
    keys = metric_keys(config)
    assert "time/evaluate" not in keys
    assert not any(key.startswith("eval/") for key in keys)
    assert {"scheduler/shadow/late/lr", "scheduler/shadow/late/event/decay"} <= set(keys)


def test_the_clock_and_the_keys_agree_on_their_form() -> None:
    clock = PhaseClock()
    with clock.phase("rollout"):
        pass
    assert clock.metrics().keys() <= set(metric_keys(ExperimentFile.read(DEMO).resolve("decay")))


def test_the_examples_in_the_docstrings_run() -> None:
    results = doctest.testmod(objective)
    assert results.attempted and not results.failed
