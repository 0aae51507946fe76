"""How many losses in a row a run bears."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

import orchestrator.crew.restarts
from cluster.config import RestartsConfig
from cluster.worker import WorkerLost
from orchestrator.crew.restarts import Restarts, RestartsExhausted

ROLES = ["rollout", "learner", "scheduler"]


def lost(worker: str = "rollout-0") -> WorkerLost:
    return WorkerLost(worker, "generate", "it died")


def counting(told: list[str] | None = None, **allowed: int) -> Restarts:
    said = [] if told is None else told
    return Restarts(RestartsConfig(**allowed), lambda one, remedy: said.append(f"{one.worker}: {remedy}"))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_one_loss_more_than_is_allowed_is_too_many(role: str, allowed: int) -> None:
    restarts = Restarts(RestartsConfig(**{role: allowed}), lambda one, remedy: None)
    for _ in range(allowed):
        restarts.spend(lost(f"{role}-0"), "again")
    with pytest.raises(RestartsExhausted) as raised:
        restarts.spend(lost(f"{role}-1"), "again")
    assert raised.value.lost.worker == f"{role}-1"
    assert raised.value.__cause__ is raised.value.lost
    assert restarts.total == allowed


def test_what_was_too_much_is_told_in_one_line_with_the_setting_that_allows_more() -> None:
    restarts = counting(rollout=1)
    restarts.spend(lost(), "again")
    with pytest.raises(RestartsExhausted) as raised:
        restarts.spend(lost(), "again")
    assert str(raised.value) == (
        "rollout-0 was lost in generate: it died; 2 losses without a step done: cluster.restarts.rollout is 1"
    )


def test_every_loss_that_is_borne_is_told_of_with_its_remedy_and_no_other() -> None:
    told: list[str] = []
    restarts = counting(told, rollout=1)
    restarts.spend(lost("rollout-3"), "it starts again")
    with pytest.raises(RestartsExhausted):
        restarts.spend(lost(), "it starts again")
    assert told == ["rollout-3: it starts again"]


def test_workers_of_one_role_count_together_and_roles_apart() -> None:
    restarts = counting(rollout=2, learner=1, scheduler=1)
    for worker in ("rollout-0", "learner-0", "rollout-1", "scheduler-0"):
        restarts.spend(lost(worker), "again")
    for worker in ("rollout-2", "learner-1", "scheduler-0"):
        with pytest.raises(RestartsExhausted, match=f"^{worker} "):
            restarts.spend(lost(worker), "again")
    assert restarts.total == 4


@given(st.lists(st.integers(0, 3), max_size=20))
def test_a_further_step_makes_the_counts_start_again_but_not_the_total(losses_by_step: list[int]) -> None:
    restarts = counting(rollout=3)
    for losses in losses_by_step:
        for _ in range(losses):
            restarts.spend(lost(), "again")
        restarts.progress()
    assert restarts.total == sum(losses_by_step)


def test_the_example_in_the_docstring_runs() -> None:
    results = doctest.testmod(orchestrator.crew.restarts)
    assert results.attempted and not results.failed
