"""The central scheduler: exact merging, the smoothed norm, clipping, refusals to update, and its saved state."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.lr_policies import ConstantConfig, LengthTriggeredConfig, LrDecision
from actors.messages import GradientReport
from actors.scheduler import Scheduler
from actors.statistics import MismatchSums

LENGTH = "response/length_mean"
positive = st.floats(1e-6, 1e6)


class RecordingPolicy:
    """Remembers what it was shown; the learning rate is the step number."""

    signals = ()

    def __init__(self, events: tuple[str, ...] = ()) -> None:
        self.seen: list[tuple[int, dict[str, float | None]]] = []
        self.events = events

    def observe(self, step: int, metrics: Mapping[str, float | None]) -> LrDecision:
        self.seen.append((step, dict(metrics)))
        return LrDecision(step=step, lr=float(step), events=self.events)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def report(
    square_sum: float = 4.0, nonfinite: int = 0, tokens: int = 2, loss: float = 0.5, entropy_sum: float = 3.0
) -> GradientReport:
    """Of one rank with a single sequence."""
    rollout = -np.linspace(0.5, 1.5, tokens)
    return GradientReport(
        mismatch=MismatchSums.from_logprobs(rollout - 0.1, rollout, [tokens]),
        entropy_sum=entropy_sum,
        loss=loss,
        grad_square_sum=square_sum,
        nonfinite=nonfinite,
    )


def constant(grad_clip: float = 1.0) -> Scheduler:
    return Scheduler(ConstantConfig(lr=1e-3).build(total_steps=None), grad_clip)


def test_reports_are_added_up_before_anything_is_averaged_or_rooted() -> None:
    order = constant().decide(
        0, [report(9.0, tokens=2, loss=0.25, entropy_sum=1.0), report(16.0, tokens=6, loss=-1.0, entropy_sum=5.0)], {}
    )
    merged = report(tokens=2).mismatch.merge(report(tokens=6).mismatch).metrics()
    assert order.metrics["gradient/norm"] == 5.0
    assert order.metrics["policy/loss"] == -0.75
    assert order.metrics["policy/entropy"] == 6.0 / 8
    assert {key: order.metrics[f"mismatch/{key}"] for key in merged} == merged


@given(st.lists(positive, min_size=1, max_size=6))
def test_the_norm_is_that_of_the_whole_gradient_whatever_the_number_of_ranks(square_sums: list[float]) -> None:
    norm = constant().decide(0, [report(value) for value in square_sums], {}).metrics["gradient/norm"]
    assert norm == pytest.approx(math.sqrt(math.fsum(square_sums)))


def test_the_smoothed_norm_starts_at_the_first_norm_and_follows_by_a_twentieth() -> None:
    scheduler = constant()
    smoothed = [
        scheduler.decide(step, [report(norm**2)], {}).metrics["gradient/norm_smoothed"]
        for step, norm in enumerate([2.0, 4.0, 0.0])
    ]
    assert smoothed == pytest.approx([2.0, 0.05 * 4 + 0.95 * 2, 0.95 * (0.05 * 4 + 0.95 * 2)])


@given(square_sum=positive, grad_clip=positive)
def test_clipping_brings_the_norm_to_the_limit_and_never_enlarges_it(square_sum: float, grad_clip: float) -> None:
    order = constant(grad_clip).decide(0, [report(square_sum)], {})
    norm = math.sqrt(square_sum)
    assert 0 < order.clip_scale <= 1
    assert norm * order.clip_scale <= grad_clip * (1 + 1e-9)
    assert norm * order.clip_scale == pytest.approx(min(norm, grad_clip), rel=1e-2 if norm < 1e-3 else 2e-3)
    assert order.metrics["gradient/clipped"] == float(norm > grad_clip)


def test_a_nonfinite_gradient_is_not_applied_and_leaves_the_smoothed_norm_as_it_was() -> None:
    scheduler = constant()
    scheduler.decide(0, [report(4.0)], {})
    order = scheduler.decide(1, [report(math.nan, nonfinite=3), report(1.0, nonfinite=2)], {})
    assert not order.update
    assert order.metrics["gradient/nonfinite"] == 5
    assert not {"gradient/norm", "gradient/norm_smoothed"} & order.metrics.keys()
    assert order.decision.lr == 1e-3
    after = scheduler.decide(2, [report(4.0)], {})
    assert after.update
    assert after.metrics["gradient/norm_smoothed"] == 2.0


def test_no_metric_of_an_order_is_ever_nonfinite_because_the_gradient_is() -> None:
    order = constant().decide(0, [report(math.inf, nonfinite=1)], {})
    assert all(math.isfinite(value) for value in order.metrics.values())


def test_an_empty_step_still_decides_and_measures_nothing_of_section_2() -> None:
    order = constant().decide(7, [], {LENGTH: 30.0})
    assert order.decision == LrDecision(step=7, lr=1e-3, events=())
    assert not order.update
    assert order.metrics == {LENGTH: 30.0, "scheduler/lr": 1e-3}


def test_the_policy_sees_the_metrics_of_the_very_step_it_decides() -> None:
    policy = RecordingPolicy()
    order = Scheduler(policy, 1.0).decide(41, [report()], {LENGTH: 31.5})
    ((step, seen),) = policy.seen
    assert step == order.decision.step == 41
    assert seen[LENGTH] == 31.5
    assert seen["gradient/norm"] == 2.0
    assert seen["mismatch/tokens"] == 2
    assert order.decision.lr == order.metrics["scheduler/lr"] == 41.0


def test_events_become_metrics_that_are_one_where_they_happened() -> None:
    order = Scheduler(RecordingPolicy(events=("decay", "floor")), 1.0).decide(0, [report()], {})
    assert order.metrics["scheduler/event/decay"] == order.metrics["scheduler/event/floor"] == 1.0
    assert "scheduler/event/surge" not in order.metrics


def test_the_metrics_handed_in_are_left_as_they_were() -> None:
    metrics = {LENGTH: 31.5}
    constant().decide(0, [report()], metrics)
    assert metrics == {LENGTH: 31.5}


@given(lengths=st.lists(st.floats(1, 100), min_size=12, max_size=30), cut=st.integers(0, 11))
def test_a_scheduler_restored_from_json_decides_like_one_that_went_on(lengths: list[float], cut: int) -> None:
    def fresh() -> Scheduler:
        config = LengthTriggeredConfig(lr=1e-3, baseline_steps=3, smoothing=0.5, ratio=1.2, patience=1)
        return Scheduler(config.build(total_steps=None), 1.0)

    scheduler, restored = fresh(), fresh()
    steps = [(step, [report(step + 1.0)], {LENGTH: length}) for step, length in enumerate(lengths)]
    for step in steps[:cut]:
        scheduler.decide(*step)
    restored.load_state_dict(json.loads(json.dumps(scheduler.state_dict(), allow_nan=False)))
    assert [restored.decide(*step) for step in steps[cut:]] == [scheduler.decide(*step) for step in steps[cut:]]
