"""The bill of materials, without a cluster."""

import doctest
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cluster.plan
from cluster.plan import Bundle, Plan, Seat, bill_of_materials

ROLLOUT = Seat(role="rollout", cpus=0.5, gpus=1.0)
LEARNER = Seat(role="learner", cpus=2.0, gpus=1.0)
SCHEDULER = Seat(role="scheduler", cpus=0.25, gpus=0.0)
PLAN = Plan(
    bundles=(*[Bundle(seats=(ROLLOUT,))] * 3, Bundle(seats=(LEARNER, LEARNER)), Bundle(seats=(SCHEDULER,))),
    name="demo",
)


def missing(plan: Plan, available: dict[str, float]) -> dict[str, float]:
    last = bill_of_materials(plan, available)[-1]
    return {name: float(last[name]) for name in ("CPU", "GPU") if last[name]}


def test_there_is_a_row_per_kind_of_bundle_in_the_order_of_the_plan_and_then_the_sums() -> None:
    assert bill_of_materials(PLAN, {"CPU": 8.0, "GPU": 4.0, "memory": 1e9}) == [
        {"bundle": "rollout (0.5 CPU, 1 GPU)", "number": 3, "CPU": 1.5, "GPU": 3.0},
        {"bundle": "2 learner (4 CPU, 2 GPU)", "number": 1, "CPU": 4.0, "GPU": 2.0},
        {"bundle": "scheduler (0.25 CPU)", "number": 1, "CPU": 0.25, "GPU": 0.0},
        {"bundle": "needed", "number": 5, "CPU": 5.75, "GPU": 5.0},
        {"bundle": "available", "number": "", "CPU": 8.0, "GPU": 4.0},
        {"bundle": "missing", "number": "", "CPU": 0.0, "GPU": 1.0},
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
def test_what_is_missing_of_the_sum_is_counted(available: dict[str, float], lacking: dict[str, float]) -> None:
    assert missing(PLAN, available) == lacking


def test_a_plan_of_nobody_needs_nothing() -> None:
    assert missing(Plan(bundles=()), {}) == {}


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_a_plan_that_adds_up_exactly_fits_however_its_fractions_round(hundredths: list[int]) -> None:
    seats = [Seat(role="learner", cpus=number / 100, gpus=0.0) for number in hundredths]
    plan = Plan(bundles=tuple(Bundle(seats=(seat,)) for seat in seats))
    assert missing(plan, {"CPU": float(Fraction(sum(hundredths), 100))}) == {}


def test_a_bundle_asks_ray_only_for_what_it_needs_and_for_all_its_seats_at_once() -> None:
    assert Bundle(seats=(SCHEDULER,)).resources() == {"CPU": 0.25}
    assert Bundle(seats=(ROLLOUT, LEARNER)).resources() == {"CPU": 2.5, "GPU": 2.0}
    tenths = (Seat(role="rollout", cpus=0.1, gpus=0.0), Seat(role="learner", cpus=0.2, gpus=0.0))
    assert Bundle(seats=tenths).resources() == {"CPU": 0.3}


def test_a_plan_reads_as_a_list_of_what_it_needs() -> None:
    assert str(PLAN) == "3 x rollout (0.5 CPU, 1 GPU), 1 x 2 learner (4 CPU, 2 GPU), 1 x scheduler (0.25 CPU)"
    assert str(Bundle(seats=(ROLLOUT, LEARNER))) == "rollout + learner (2.5 CPU, 2 GPU)"


def test_the_plan_of_one_role_leaves_the_others_out() -> None:
    assert PLAN.only("learner") == Plan(bundles=(Bundle(seats=(LEARNER, LEARNER)),), name="demo")
    shared = Plan(bundles=(Bundle(seats=(ROLLOUT, LEARNER)),) * 2)
    assert shared.only("rollout").bundles == (Bundle(seats=(ROLLOUT,)),) * 2


def test_the_example_in_the_docstring_runs() -> None:
    results = doctest.testmod(cluster.plan)
    assert results.attempted and not results.failed
