"""The length-triggered policy: surge, period, anchor, events."""

import math
import random
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

import pytest
from pydantic import ValidationError

from actors.lr_policies import LengthTriggeredConfig, LrDecision

Replay = Callable[..., list[LrDecision]]
QUICK = {"baseline_steps": 1, "smoothing": 1.0, "patience": 1}


def surging_at(surge: int, steps: int) -> list[tuple[int, dict[str, float]]]:
    return [(step, {"response/length_mean": 3000.0 if step >= surge else 1000.0}) for step in range(steps)]


def events(decisions: list[LrDecision]) -> dict[int, tuple[str, ...]]:
    return {decision.step: decision.events for decision in decisions if decision.events}


def test_the_published_period_gives_the_published_learning_rates(replay: Replay) -> None:
    decisions = replay(LengthTriggeredConfig(lr=1e-6, decay_period=204), [(step, {}) for step in range(900)])
    for step, factor in {0: 1, 203: 1, 204: 0.5, 407: 0.5, 408: 0.25, 612: 0.125, 816: 0.1, 899: 0.1}.items():
        assert decisions[step].lr == pytest.approx(factor * 1e-6, rel=1e-12)
    assert events(decisions) == {204: ("decay",), 408: ("decay",), 612: ("decay",), 816: ("decay", "floor")}


def test_the_surge_sets_the_period(replay: Replay) -> None:
    decisions = replay(LengthTriggeredConfig(**QUICK), surging_at(10, 80))  # type: ignore[arg-type]
    assert events(decisions) == {
        10: ("surge",),
        18: ("decay",),
        36: ("decay",),
        54: ("decay",),
        72: ("decay", "floor"),
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("anchor", ["start", "surge"])
def test_a_noisy_run_is_decided_as_a_plain_loop_over_its_history_decides(
    replay: Replay, seed: int, anchor: Literal["start", "surge"]
) -> None:
    noise = random.Random(seed)
    lengths = [noise.gauss(1000, 150) * (1 + max(0, step - 60) / 40) for step in range(500)]
    baseline, ema, count, surge = statistics.median(lengths[:50]), lengths[0], 0, None
    expected = []
    for step, length in enumerate(lengths):
        ema = 0.2 * length + 0.8 * ema
        count = count + 1 if step >= 50 and ema > 2 * baseline else 0
        surge = step if surge is None and count == 3 else surge
        period = None if surge is None else math.floor(Fraction("1.8") * surge)
        origin = surge if anchor == "surge" else 0
        num_decays = 0 if period is None or origin is None else (step - origin) // period
        expected.append(1e-6 * max(0.5**num_decays, 0.1))
    decisions = replay(
        LengthTriggeredConfig(anchor=anchor), [(t, {"response/length_mean": x}) for t, x in enumerate(lengths)]
    )
    assert [decision.lr for decision in decisions] == pytest.approx(expected, rel=1e-12)
    assert [step for step, names in events(decisions).items() if "surge" in names] == [surge]


def test_patience_delays_the_surge_to_the_step_where_the_count_is_full(replay: Replay) -> None:
    config = LengthTriggeredConfig(baseline_steps=1, smoothing=1.0, patience=4)
    assert events(replay(config, surging_at(10, 20))) == {13: ("surge",)}


def test_the_anchor_surge_counts_periods_from_the_surge(replay: Replay) -> None:
    config = LengthTriggeredConfig(anchor="surge", **QUICK)  # type: ignore[arg-type]
    assert list(events(replay(config, surging_at(10, 70)))) == [10, 28, 46, 64]


def test_the_anchor_surge_with_a_period_by_hand_waits_for_the_surge(replay: Replay) -> None:
    config = LengthTriggeredConfig(anchor="surge", decay_period=7, **QUICK)  # type: ignore[arg-type]
    assert list(events(replay(config, surging_at(10, 30)))) == [10, 17, 24]


def test_a_surge_by_hand_makes_the_period_known_from_the_start(replay: Replay) -> None:
    config = LengthTriggeredConfig(surge_step=30, period_multiplier=0.5)
    decisions = replay(config, surging_at(5, 40))
    assert events(decisions) == {15: ("decay",), 30: ("surge", "decay")}
    assert config.build(total_steps=None).signals == ()
    assert LengthTriggeredConfig().build(total_steps=None).signals == ("response/length_mean",)


def test_surge_and_period_by_hand_both_hold(replay: Replay) -> None:
    config = LengthTriggeredConfig(surge_step=12, decay_period=10)
    assert events(replay(config, surging_at(3, 25))) == {10: ("decay",), 12: ("surge",), 20: ("decay",)}


def test_a_period_by_hand_still_records_the_surge_even_on_the_floor(replay: Replay) -> None:
    config = LengthTriggeredConfig(decay_period=2, min_lr_ratio=0.5, **QUICK)  # type: ignore[arg-type]
    assert events(replay(config, surging_at(6, 20))) == {2: ("decay", "floor"), 6: ("surge",)}


def test_what_falls_due_in_a_gap_happens_once_at_the_next_row(replay: Replay) -> None:
    config = LengthTriggeredConfig(surge_step=60, period_multiplier=1.25, anchor="surge", lr=1e-6)
    decisions = replay(config, [(step, {}) for step in (20, 100, 134, 290, 1000)])
    assert [decision.events for decision in decisions] == [(), ("surge",), (), ("decay",), ("decay", "floor")]
    assert [decision.lr for decision in decisions] == pytest.approx([1e-6, 1e-6, 1e-6, 1.25e-7, 1e-7], rel=1e-12)


def test_a_trace_that_starts_late_catches_up_at_its_first_row(replay: Replay) -> None:
    (decision,) = replay(LengthTriggeredConfig(surge_step=110, lr=1e-6), [(5000, {})])
    assert decision == LrDecision(step=5000, lr=1e-7, events=("surge", "decay", "floor"))


def test_a_run_that_never_surges_keeps_its_learning_rate(replay: Replay) -> None:
    decisions = replay(LengthTriggeredConfig(lr=2e-6), surging_at(10**9, 300))
    assert {decision.lr for decision in decisions} == {2e-6}
    assert events(decisions) == {}


def test_rows_without_a_length_delay_the_surge_but_not_the_lr(replay: Replay) -> None:
    trace = [(0, {"response/length_mean": 10.0}), (1, {}), (2, {"response/length_mean": None})]
    trace += [(3, {"response/length_mean": 30.0}), (6, {})]
    decisions = replay(LengthTriggeredConfig(warmup_steps=4, lr=4.0, **QUICK), trace)  # type: ignore[arg-type]
    assert events(decisions) == {3: ("surge",), 6: ("decay",)}
    assert [decision.lr for decision in decisions] == [1.0, 2.0, 3.0, 4.0, 2.0]


@pytest.mark.parametrize(
    ("multiplier", "surge", "period"),
    [
        (1.1, 10, 11),
        (1.15, 100, 115),  # 1.15 * 100 is 114.99999999999999 in floats
        (2.3, 100, 230),  # 229.99999999999997
        (1.8, 112, 201),
        (1.8, 90, 162),
        (0.29, 100, 29),  # 28.999999999999996
        (0.001, 5, 1),
        (1.8, 0, 1),
        (1e-300, 7, 1),
    ],
)
def test_the_period_is_cut_off_in_decimal_arithmetic(multiplier: float, surge: int, period: int) -> None:
    assert LengthTriggeredConfig(period_multiplier=multiplier).period_after(surge) == period


@pytest.mark.parametrize(
    "field",
    [{"period_multiplier": 0.0}, {"surge_step": -1}, {"surge_step": 1.5}, {"decay_period": 0}, {"anchor": "'middle'"}],
)
def test_values_outside_their_range_are_refused_by_name(field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(ValidationError, match=rf"{name}\n.*input_value=.*{value}"):
        LengthTriggeredConfig(**field)  # type: ignore[arg-type]


def test_its_detector_can_be_looked_at() -> None:
    policy = LengthTriggeredConfig(baseline_steps=1, smoothing=1.0, ratio=2.0).build(total_steps=None)
    policy.observe(0, {"response/length_mean": 5.0})
    assert (policy.detector.ema, policy.detector.level, policy.detector.count) == (5.0, 10.0, 0)


def test_a_hundred_thousand_steps_are_decided_in_no_time() -> None:
    policy = LengthTriggeredConfig(factor=0.9999, min_lr_ratio=1e-9, decay_period=1).build(total_steps=None)
    started = time.process_time()
    for step in range(100_000):
        policy.observe(step, {"response/length_mean": 1000.0})
    assert time.process_time() - started < 2
