"""The signal-triggered policy: threshold or ratio, cooldown, floor."""

import math
import time
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from actors.lr_policies import LrDecision, SignalTriggeredConfig

Replay = Callable[..., list[LrDecision]]
KEY = "gradient/noise_scale"


def config(**fields: object) -> SignalTriggeredConfig:
    return SignalTriggeredConfig(**{"signal": KEY, "smoothing": 1.0, "patience": 2, **fields})  # type: ignore[arg-type]


def fired(decisions: list[LrDecision]) -> list[int]:
    return [decision.step for decision in decisions if "decay" in decision.events]


def test_a_threshold_can_fire_from_the_first_usable_value_on(replay: Replay) -> None:
    trace = [(step, {KEY: 2.0}) for step in range(20)]
    assert fired(replay(config(threshold=1.0, patience=1, cooldown_steps=8), trace)) == [0, 8, 16]


def test_a_signal_that_stays_high_fires_at_the_very_end_of_each_cooldown(replay: Replay) -> None:
    trace = [(step, {KEY: 2.0}) for step in range(40)]
    decisions = replay(config(threshold=1.0, cooldown_steps=10, lr=1.0), trace)
    assert fired(decisions) == [1, 11, 21, 31]
    assert [decisions[step].lr for step in (0, 1, 11, 21, 31, 39)] == [1.0, 0.5, 0.25, 0.125, 0.1, 0.1]
    assert decisions[31].events == ("decay", "floor")


def test_the_count_runs_on_through_the_cooldown(replay: Replay) -> None:
    high = {0, 1, 9, 10, 11, 12}
    trace = [(step, {KEY: 2.0 if step in high else 0.0}) for step in range(20)]
    assert fired(replay(config(threshold=1.0, cooldown_steps=10), trace)) == [1, 11]
    assert fired(replay(config(threshold=1.0, cooldown_steps=11), trace)) == [1, 12]
    assert fired(replay(config(threshold=1.0, cooldown_steps=12), trace)) == [1]


def test_without_a_cooldown_it_fires_every_patience_steps(replay: Replay) -> None:
    trace = [(step, {KEY: 2.0}) for step in range(10)]
    assert fired(replay(config(threshold=1.0, cooldown_steps=0, patience=3, factor=0.9), trace)) == [2, 5, 8]


def test_a_baseline_comes_first_when_there_is_no_threshold(replay: Replay) -> None:
    values = [1.0, 1.0, 1.0, 2.5, 2.5, 3.5, 3.5, 3.5]
    trace = [(step, {KEY: value}) for step, value in enumerate(values)]
    assert fired(replay(config(ratio=3.0, baseline_steps=3), trace)) == [6]


def test_nothing_fires_after_the_floor(replay: Replay) -> None:
    trace = [(step, {KEY: 2.0}) for step in range(50)]
    decisions = replay(config(threshold=1.0, cooldown_steps=2, min_lr_ratio=0.25, lr=1.0), trace)
    assert fired(decisions) == [1, 3]
    assert decisions[3].events == ("decay", "floor")
    assert decisions[-1].lr == 0.25


@pytest.mark.parametrize("unusable", [None, math.nan, math.inf])
def test_a_row_without_a_usable_signal_never_fires(replay: Replay, unusable: float | None) -> None:
    trace = [(step, {KEY: unusable if 10 <= step < 14 else 2.0}) for step in range(15)]
    assert fired(replay(config(threshold=1.0, cooldown_steps=10), trace)) == [1, 14]


def test_the_lr_is_decided_without_a_signal_too(replay: Replay) -> None:
    decisions = replay(config(warmup_steps=2, lr=1.0), [(0, {}), (1, {"other": 9.0}), (7, {KEY: None})])
    assert [decision.lr for decision in decisions] == [0.5, 1.0, 1.0]


def test_it_names_the_key_it_reads() -> None:
    assert config().build(total_steps=None).signals == (KEY,)


def test_a_negative_threshold_is_a_threshold(replay: Replay) -> None:
    assert fired(replay(config(threshold=-1.0, patience=1), [(0, {KEY: -2.0}), (1, {KEY: -0.5})])) == [1]


@pytest.mark.parametrize("field", [{"threshold": math.inf}, {"threshold": math.nan}, {"cooldown_steps": -1}])
def test_values_outside_their_range_are_refused_by_name(field: dict[str, float]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(ValidationError, match=rf"{name}\n.*input_value={value}"):
        config(**field)


def test_a_signal_is_asked_for_by_name() -> None:
    with pytest.raises(ValidationError, match="signal"):
        SignalTriggeredConfig()  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="signal"):
        SignalTriggeredConfig(signal="")


def test_its_detector_can_be_looked_at() -> None:
    policy = config(threshold=1.0).build(total_steps=None)
    policy.observe(0, {KEY: 2.0})
    assert (policy.detector.ema, policy.detector.level, policy.detector.count) == (2.0, 1.0, 1)


def test_a_hundred_thousand_steps_are_decided_in_no_time() -> None:
    policy = config(threshold=1.0, patience=1, cooldown_steps=0, factor=0.9999, min_lr_ratio=1e-9).build(None)
    started = time.process_time()
    for step in range(100_000):
        policy.observe(step, {KEY: 2.0})
    assert time.process_time() - started < 2
