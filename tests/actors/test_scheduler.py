"""The central scheduler: exact merging, the smoothed norm, clipping, empty steps, shadows, and its saved state."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_inputs import RecordingPolicy, constant, decide, report

from actors.config import LearnerConfig
from actors.corrections import CorrectionSums
from actors.lr_policies import LengthTriggeredConfig, LrDecision
from actors.scheduler import Scheduler

LENGTH = "response/length_mean"
positive = st.floats(1e-6, 1e6)


def test_reports_are_added_up_before_anything_is_averaged_or_rooted() -> None:
    reports = [report(9.0, tokens=2, loss=0.25, entropy_sum=1.0), report(16.0, tokens=6, loss=-1.0, entropy_sum=5.0)]
    order = decide(constant(), reports)
    merged = report(tokens=2).mismatch.merge(report(tokens=6).mismatch).metrics()
    assert order.metrics["gradient/norm"] == 5.0
    assert order.metrics["policy/loss"] == -0.75
    assert order.metrics["policy/entropy"] == 6.0 / 8
    assert {key: order.metrics[f"mismatch/{key}"] for key in merged} == merged


@given(st.lists(positive, min_size=1, max_size=6))
def test_the_norm_is_that_of_the_whole_gradient_whatever_the_number_of_ranks(square_sums: list[float]) -> None:
    norm = decide(constant(), [report(value) for value in square_sums]).metrics["gradient/norm"]
    assert norm == pytest.approx(math.sqrt(math.fsum(square_sums)))


def test_the_smoothed_norm_starts_at_the_first_norm_and_follows_by_a_twentieth() -> None:
    scheduler = constant()
    smoothed = [
        decide(scheduler, [report(norm**2)], step=step).metrics["gradient/norm_smoothed"]
        for step, norm in enumerate([2.0, 4.0, 0.0])
    ]
    assert smoothed == pytest.approx([2.0, 0.05 * 4 + 0.95 * 2, 0.95 * (0.05 * 4 + 0.95 * 2)])


@given(square_sum=positive, grad_clip=positive)
def test_clipping_brings_the_norm_to_the_limit_and_never_enlarges_it(square_sum: float, grad_clip: float) -> None:
    order = decide(constant(grad_clip), [report(square_sum)])
    norm = math.sqrt(square_sum)
    assert 0 < order.grad_scale <= 1
    assert norm * order.grad_scale <= grad_clip * (1 + 1e-9)
    assert norm * order.grad_scale == pytest.approx(min(norm, grad_clip), rel=1e-2 if norm < 1e-3 else 2e-3)
    assert order.metrics["gradient/clipped"] == float(norm > grad_clip)


def test_a_nonfinite_gradient_is_not_applied_and_leaves_the_smoothed_norm_as_it_was() -> None:
    scheduler = constant()
    decide(scheduler, [report(4.0)])
    order = decide(scheduler, [report(math.nan, nonfinite=3), report(1.0, nonfinite=2)], step=1)
    assert not order.update
    assert order.metrics["gradient/nonfinite"] == 5
    assert not {"gradient/norm", "gradient/norm_smoothed", "policy/loss"} & order.metrics.keys()
    assert order.decision.lr == 1e-3
    after = decide(scheduler, [report(4.0)], step=2)
    assert after.update
    assert after.metrics["gradient/norm_smoothed"] == 2.0


def test_no_metric_of_an_order_is_ever_nonfinite_because_the_gradient_is() -> None:
    order = decide(constant(), [report(math.inf, nonfinite=1)])
    assert all(math.isfinite(value) for value in order.metrics.values())


def test_an_empty_step_still_decides_and_measures_nothing_of_section_2() -> None:
    order = constant().decide(7, [], {LENGTH: 30.0}, num_prompts=0)
    assert order.decision == LrDecision(step=7, lr=1e-3, events=())
    assert not order.update
    assert order.metrics == {LENGTH: 30.0, "sampling/empty_steps": 1.0, "scheduler/lr": 1e-3}


def test_a_step_with_something_to_learn_from_is_counted_as_no_empty_one() -> None:
    assert decide(constant(), [report()]).metrics["sampling/empty_steps"] == 0.0


def test_a_step_of_which_a_correction_left_nothing_is_empty_and_moves_no_average() -> None:
    scheduler = constant()
    decide(scheduler, [report(4.0)])
    dropped = CorrectionSums(tokens=2, sequences=1)
    order = decide(scheduler, [report(9.0, correction=dropped), report(16.0, correction=dropped)], step=1)
    assert not order.update
    assert order.metrics == {"sampling/empty_steps": 1.0, "scheduler/lr": 1e-3}
    assert decide(scheduler, [report(4.0)], step=2).metrics["gradient/norm_smoothed"] == 2.0


def test_a_rank_without_data_does_not_make_the_step_empty() -> None:
    order = decide(constant(), [report(4.0), report(1.0, tokens=0, correction=CorrectionSums())])
    assert order.update
    assert order.metrics["gradient/norm"] == pytest.approx(math.sqrt(5))


def test_the_policy_sees_the_metrics_of_the_very_step_it_decides() -> None:
    policy = RecordingPolicy()
    order = decide(Scheduler(policy, LearnerConfig()), [report()], {LENGTH: 31.5}, step=41)
    ((step, seen),) = policy.seen
    assert step == order.decision.step == 41
    assert seen[LENGTH] == 31.5
    assert seen["gradient/norm"] == 2.0
    assert seen["mismatch/tokens"] == 2
    assert order.decision.lr == order.metrics["scheduler/lr"] == 41.0


def test_events_become_metrics_that_are_one_where_they_happened() -> None:
    order = decide(Scheduler(RecordingPolicy(events=("decay", "floor")), LearnerConfig()), [report()])
    assert order.metrics["scheduler/event/decay"] == order.metrics["scheduler/event/floor"] == 1.0
    assert "scheduler/event/surge" not in order.metrics


def test_the_metrics_handed_in_are_left_as_they_were() -> None:
    metrics = {LENGTH: 31.5}
    decide(constant(), [report()], metrics)
    assert metrics == {LENGTH: 31.5}


def test_shadows_see_the_same_metrics_and_only_log_what_they_would_have_done() -> None:
    active, shadow = RecordingPolicy(), RecordingPolicy(scale=0.5, events=("surge", "decay"))
    order = decide(Scheduler(active, LearnerConfig(), {"late": shadow}), [report()], {LENGTH: 31.5}, step=6)
    alone = decide(Scheduler(RecordingPolicy(), LearnerConfig()), [report()], {LENGTH: 31.5}, step=6)
    assert shadow.seen == active.seen
    logged = {
        "scheduler/shadow/late/lr": 3.0,
        "scheduler/shadow/late/event/surge": 1.0,
        "scheduler/shadow/late/event/decay": 1.0,
    }
    assert order.metrics == {**alone.metrics, **logged}
    assert (order.decision, order.grad_scale, order.update) == (alone.decision, alone.grad_scale, alone.update)


def test_several_shadows_are_told_apart_by_name_and_decide_at_empty_steps_too() -> None:
    shadows = {name: RecordingPolicy(scale=scale) for name, scale in (("a", 2.0), ("b/c", 3.0))}
    order = Scheduler(RecordingPolicy(), LearnerConfig(), shadows).decide(5, [], {}, num_prompts=0)
    assert order.metrics["scheduler/shadow/a/lr"] == 10.0
    assert order.metrics["scheduler/shadow/b/c/lr"] == 15.0
    assert order.decision.lr == 5.0


@given(lengths=st.lists(st.floats(1, 100), min_size=12, max_size=30), cut=st.integers(0, 11))
def test_a_scheduler_restored_from_json_decides_like_one_that_went_on(lengths: list[float], cut: int) -> None:
    def fresh() -> Scheduler:
        eager, slow = (
            LengthTriggeredConfig(lr=1e-3, baseline_steps=3, smoothing=0.5, ratio=ratio, patience=1)
            for ratio in (1.2, 1.4)
        )
        return Scheduler(eager.build(total_steps=None), LearnerConfig(), shadows={"slow": slow.build(total_steps=None)})

    scheduler, restored = fresh(), fresh()
    steps = [(step, [report(step + 1.0)], {LENGTH: length}, 4) for step, length in enumerate(lengths)]
    for step in steps[:cut]:
        scheduler.decide(*step)
    restored.load_state_dict(json.loads(json.dumps(scheduler.state_dict(), allow_nan=False)))
    assert [restored.decide(*step) for step in steps[cut:]] == [scheduler.decide(*step) for step in steps[cut:]]
