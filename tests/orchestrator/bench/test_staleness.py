"""What the turns of fresh and stale runs come to; the runs are those of tests/end_to_end/test_simulation.py."""

import pytest

from orchestrator.bench.paced_run import Turn
from orchestrator.bench.staleness import figures_of, workload
from orchestrator.records import StepRecord


def turn(seconds: float, age: float | None, steps: int = 2) -> Turn:
    metrics = {"time/rollout": 0.5, "time/gradients": 0.45}
    if age is not None:
        metrics |= {"sampling/staleness_mean": age, "sampling/staleness_max": age, "time/await_rollout": 0.05}
    record = StepRecord(step=0, time_ms=0, metrics=metrics, events=())
    return Turn(seconds=seconds, tokens=100, records=(record,) * steps)


def test_the_ratio_is_of_steps_per_second_and_both_sides_tell_how_old_their_tokens_were() -> None:
    fresh = [turn(2.0, None), turn(2.2, None), turn(2.4, None)]
    stale = [turn(1.0, 1.0), turn(1.1, 1.0), turn(1.2, 1.0)]
    ratio, *told = figures_of(fresh, stale)
    assert ratio.value == pytest.approx(2.0)
    assert ratio.holds
    values = {figure.name: figure.value for figure in told}
    assert values["at 0: a step"] == pytest.approx(1.1)
    assert values["at 1: a step"] == pytest.approx(0.55)
    assert values["at 0: sampling/staleness_max"] == 0
    assert values["at 1: sampling/staleness_mean"] == 1
    assert values["at 1: await_rollout of a step"] == 0.05
    assert "at 0: await_rollout of a step" not in values


def test_less_than_the_target_does_not_hold() -> None:
    ratio, *_ = figures_of([turn(1.6, None)], [turn(1.0, 1.0)])
    assert ratio.holds is False


def test_stand_ins_learn_for_as_long_as_they_sample_and_nothing_else_is_done() -> None:
    fresh, stale = workload(0, 0.5).config, workload(1, 0.5).config
    assert fresh.simulation is not None
    seconds = fresh.simulation.seconds
    assert seconds.generate == 0.5
    assert seconds.gradients + seconds.apply + seconds.publish == pytest.approx(0.5)
    assert fresh.checkpoint is None
    assert (fresh.max_staleness, stale.max_staleness) == (0, 1)
    assert stale == fresh.model_copy(update={"name": stale.name, "max_staleness": 1})
