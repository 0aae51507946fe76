"""The detector: EMA, baseline and counter."""

import math
import statistics

import pytest
from pydantic import ValidationError

from actors.lr_policies import LengthTriggeredConfig
from actors.lr_policies.detector import Detector


def detector(threshold: float | None = None, **fields: float) -> Detector:
    return Detector(LengthTriggeredConfig(**{"smoothing": 1.0, **fields}), threshold)  # type: ignore[arg-type]


def test_the_baseline_is_the_median_of_the_raw_values() -> None:
    for values in ([10.0, 1000.0, 12.0], [10.0, 14.0, 1000.0, 12.0]):
        watch = detector(baseline_steps=len(values), patience=1, ratio=2.0)
        assert not any(watch.rises(value) for value in values)
        level = 2.0 * statistics.median(values)
        assert not watch.rises(level)
        assert watch.rises(math.nextafter(level, math.inf))


def test_the_ema_starts_at_the_first_value_and_runs_through_the_baseline() -> None:
    watch = detector(baseline_steps=2, smoothing=0.25, patience=1, ratio=2.0)
    ema = 8.0
    assert not watch.rises(8.0)
    for value, rises in ((12.0, False), (20.0, False), (36.0, False), (36.0, True)):  # the baseline is 10
        ema = 0.25 * value + 0.75 * ema
        assert watch.rises(value) is rises is (ema > 20.0)
        assert watch.state_dict()["ema"] == ema


def test_a_value_at_or_below_the_level_counts_from_zero_again() -> None:
    watch = detector(threshold=5.0, patience=3)
    assert [watch.rises(value) for value in (6, 6, 5, 6, 6, 6, 6)] == [False] * 5 + [True, True]


def test_a_threshold_needs_no_baseline() -> None:
    assert detector(threshold=0.0, patience=1, baseline_steps=50).rises(1e-9)


@pytest.mark.parametrize("unusable", [None, math.nan, math.inf, -math.inf])
def test_an_unusable_value_changes_nothing(unusable: float | None) -> None:
    watch = detector(baseline_steps=2, patience=2)
    for value in (1.0, 1.0, 9.0):
        assert not watch.rises(unusable)
        watch.rises(value)
    before = watch.state_dict()
    assert not watch.rises(unusable)
    assert watch.state_dict() == before
    assert watch.rises(9.0)
    assert not watch.rises(unusable)


def test_a_restart_keeps_the_baseline() -> None:
    watch = detector(baseline_steps=1, patience=2)
    assert [watch.rises(value) for value in (1, 3, 3)] == [False, False, True]
    watch.restart()
    assert [watch.rises(value) for value in (3, 3)] == [False, True]


def test_ema_level_and_count_can_be_looked_at() -> None:
    watch = detector(baseline_steps=2, smoothing=0.5, patience=5)
    assert (watch.ema, watch.level, watch.count) == (None, None, 0)
    seen = [
        (watch.rises(value), watch.ema, watch.level, watch.count)[1:] for value in (8.0, 12.0, math.nan, 50.0, 50.0)
    ]
    assert seen == [(8.0, None, 0), (10.0, 20.0, 0), (10.0, 20.0, 0), (30.0, 20.0, 1), (40.0, 20.0, 2)]
    assert detector(threshold=5.0).level == 5.0


def test_a_saved_state_does_not_change_with_its_owner() -> None:
    watch = detector(baseline_steps=3)
    watch.rises(1.0)
    state = watch.state_dict()
    watch.rises(2.0)
    assert state["baseline_values"] == [1.0]


@pytest.mark.parametrize(
    "field",
    [{"smoothing": 0.0}, {"smoothing": 1.5}, {"ratio": 0.0}, {"ratio": -1.0}, {"patience": 0}, {"baseline_steps": 0}],
)
def test_values_outside_their_range_are_refused_by_name(field: dict[str, float]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(ValidationError, match=rf"{name}\n.*input_value={value}"):
        LengthTriggeredConfig(**field)  # type: ignore[arg-type]
