"""The figures that stand for a run, by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.curves import Curves
from sweeps.measures import (
    WINDOW,
    Measure,
    best,
    best_window,
    first_window,
    last,
    last_window,
    measures,
    validation_keys,
    validation_name,
    window_means,
)


def run(key: str, values: Sequence[float | None]) -> Curves:
    rows = tuple({"step": i} if value is None else {"step": i, key: value} for i, value in enumerate(values))
    return Curves(arm="decay", seed=0, steps=np.arange(len(rows)), rows=rows)


def test_windows_are_five_values_in_a_row() -> None:
    assert window_means(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 11.0])).tolist() == pytest.approx([3.0, 5.0])
    assert window_means(np.array([1.0, 2.0])).tolist() == [1.5]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30))
def test_every_window_mean_lies_between_the_extremes(values: list[float]) -> None:
    means = window_means(np.array(values))
    assert len(means) == max(1, len(values) - WINDOW + 1)
    assert (means >= min(values) - 1e-9).all() and (means <= max(values) + 1e-9).all()


def test_first_best_and_last_are_told_apart() -> None:
    values = np.array([0.0] * 5 + [1.0, 2.0] + [0.5] * 5)
    assert first_window(values) == 0.0
    assert best_window(values) == pytest.approx(4.5 / 5)  # 1, 2 and three halves
    assert last_window(values) == pytest.approx(0.5)
    assert (best(values), last(values)) == (2.0, 0.5)


def test_steps_without_the_metric_are_passed_over() -> None:
    measure = Measure(heading="reward, last", key="a", pick=last_window, spec=".3f")
    assert measure.of(run("a", [9.0, None, 1.0, 2.0, None, 3.0, 4.0, 5.0, None])) == pytest.approx(3.0)
    assert math.isnan(measure.of(run("b", [1.0])))


@pytest.mark.parametrize(
    ("value", "spec", "written"),
    [
        (0.00076, ".2e", "7.60e-4"),
        (7.6e-14, ".2e", "7.60e-14"),
        (12345.0, ".2e", "1.23e4"),
        (12345.0, ".3g", "1.23e4"),
        (1.0, ".2e", "1.00e0"),
        (0.5, "+.3f", "+0.500"),
        (-1e-5, "+.1e", "-1.0e-5"),
    ],
)
def test_numbers_are_written_without_idle_characters(value: float, spec: str, written: str) -> None:
    assert Measure(heading="", key="a", pick=last, spec=spec).write(value) == written


def test_validation_is_recognised_by_its_key() -> None:
    keys = ["eval/aime25/avg@32", "eval/aime24/avg@32", "eval/aime24/seconds", "reward/mean"]
    runs = [run(key, [None, 0.5]) for key in keys]
    assert validation_keys(runs) == ["eval/aime24/avg@32", "eval/aime25/avg@32"]
    assert validation_name("eval/aime24/avg@32") == "aime24 avg@32"


def test_only_what_some_run_recorded_is_in_the_table_in_its_order() -> None:
    runs = [run("scheduler/lr", [1.0]), run("reward/mean", [1.0]), run("eval/held_out/avg@4", [0.5, None])]
    assert [measure.heading for measure in measures(runs)] == [
        "reward, first",
        "reward, best",
        "reward, last",
        "held_out avg@4, best",
        "held_out avg@4, last",
        "learning rate, last",
    ]
    assert measures([run("policy/entropy", [1.0])]) == []


def test_arms_are_set_against_each_other_by_what_the_method_asks_about() -> None:
    keys = ("reward/mean", "eval/held_out/avg@4", "response/length_mean", "mismatch/log_ppl_abs_diff")
    keys += ("gradient/norm_smoothed", "gradient/noise_scale", "scheduler/lr")
    assert [measure.heading for measure in measures([run(key, [1.0]) for key in keys]) if measure.compared] == [
        "reward, last",
        "held_out avg@4, best",
        "held_out avg@4, last",
        "mismatch, last",
        "smoothed norm, last",
        "noise scale, last",
    ]
