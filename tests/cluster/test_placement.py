"""The bill of materials, without a cluster."""

import doctest
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cluster.placement
from cluster.placement import Bundle, bill_of_materials, missing

ROLLOUT = Bundle(role="rollout", cpus=0.5, gpus=1.0)
LEARNER = Bundle(role="learner", cpus=2.0, gpus=1.0)
SCHEDULER = Bundle(role="scheduler", cpus=0.25, gpus=0.0)
PLAN = [ROLLOUT] * 3 + [LEARNER] * 2 + [SCHEDULER]


def test_there_is_a_row_per_role_in_the_order_of_the_plan_and_then_the_sums() -> None:
    assert bill_of_materials(PLAN, {"CPU": 8.0, "GPU": 4.0, "memory": 1e9}) == [
        {"role": "rollout", "workers": 3, "CPU": 1.5, "GPU": 3.0},
        {"role": "learner", "workers": 2, "CPU": 4.0, "GPU": 2.0},
        {"role": "scheduler", "workers": 1, "CPU": 0.25, "GPU": 0.0},
        {"role": "needed", "workers": 6, "CPU": 5.75, "GPU": 5.0},
        {"role": "available", "workers": "", "CPU": 8.0, "GPU": 4.0},
        {"role": "missing", "workers": "", "CPU": 0.0, "GPU": 1.0},
    ]


@pytest.mark.parametrize(
    ("available", "lacking"),
    [
        ({"CPU": 5.75, "GPU": 5.0}, {}),
        ({"CPU": 100.0, "GPU": 100.0}, {}),
        ({"CPU": 5.0, "GPU": 5.0}, {"CPU": 0.75}),
        ({"CPU": 6.0}, {"GPU": 5.0}),
        ({}, {"CPU": 5.75, "GPU": 5.0}),
    ],
)
def test_what_is_missing_is_named_and_counted(available: dict[str, float], lacking: dict[str, float]) -> None:
    assert missing(PLAN, available) == lacking


def test_a_plan_of_nobody_needs_nothing() -> None:
    assert missing([], {}) == {}


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_a_plan_that_adds_up_exactly_fits_however_its_fractions_round(hundredths: list[int]) -> None:
    plan = [Bundle(role="learner", cpus=number / 100, gpus=0.0) for number in hundredths]
    assert missing(plan, {"CPU": float(Fraction(sum(hundredths), 100))}) == {}


def test_fifteen_workers_with_a_fifth_of_a_cpu_fit_on_three() -> None:
    assert missing([Bundle(role="rollout", cpus=0.2, gpus=0.0)] * 15, {"CPU": 3.0}) == {}


def test_a_bundle_asks_ray_only_for_what_it_needs() -> None:
    assert SCHEDULER.resources() == {"CPU": 0.25}
    assert LEARNER.resources() == {"CPU": 2.0, "GPU": 1.0}


def test_the_example_in_the_docstring_runs() -> None:
    results = doctest.testmod(cluster.placement)
    assert results.attempted and not results.failed
