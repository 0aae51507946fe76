"""Rollout workers that are lost and replaced, in pools without Ray."""

import doctest
from collections.abc import Callable
from typing import Any, cast

import pytest
from fake_pools import SHAPE, FakeCall, FakePool, FakeRolloutWorker, Journal, request, rollout_pool, seeds_of
from hypothesis import given
from hypothesis import strategies as st

import orchestrator.crew.engines
from actors.messages import SampleRequest
from cluster.config import RestartsConfig
from cluster.worker import WorkerLost
from orchestrator.crew.engines import Engines, collect, deal
from orchestrator.crew.restarts import Restarts, RestartsExhausted

REQUESTS = [request(10 * prompt, 10 * prompt + 1) for prompt in range(7)]
SEEDS = [one.seeds for one in REQUESTS]


def put_to_work(
    pool: FakePool, refresh: Callable[[], None] = lambda: None, allowed: int = 3, told: list[str] | None = None
) -> Engines:
    """Engines that are up."""
    said = [] if told is None else told
    restarts = Restarts(RestartsConfig(rollout=allowed), lambda lost, remedy: said.append(f"{lost.worker}: {remedy}"))
    engines = Engines(cast(Any, pool), restarts, refresh)
    with engines.coming_up():
        pass
    return engines


def asked(journal: Journal) -> list[tuple[str, list[SampleRequest]]]:
    """Who was asked for which responses."""
    return [(call.worker, call.args[0]) for call in journal if call.method == "generate"]


def starts(journal: Journal) -> list[str]:
    return [call.worker for call in journal if call.method == "start"]


def send(pool: FakePool) -> None:
    pool.broadcast(FakeRolloutWorker.receive, 1, "sent")


@given(st.lists(st.integers()), st.integers(1, 9))
def test_what_was_dealt_out_can_be_collected_again(items: list[int], num: int) -> None:
    dealt = deal(items, num)
    assert len(dealt) == num
    assert collect(dealt) == items
    sizes = [len(share) for share in dealt]
    assert max(sizes) - min(sizes) <= 1


def test_responses_come_in_the_order_of_the_requests_which_all_engines_share() -> None:
    journal: Journal = []
    engines = put_to_work(rollout_pool(3, journal))
    assert seeds_of(engines.generate(REQUESTS)) == SEEDS
    assert asked(journal) == [(f"rollout-{i}", REQUESTS[i::3]) for i in range(3)]


def test_there_may_be_fewer_requests_than_engines() -> None:
    engines = put_to_work(rollout_pool(3, []))
    assert seeds_of(engines.generate(REQUESTS[:1])) == SEEDS[:1]


def test_the_successor_of_a_lost_engine_is_asked_for_the_very_same_share_and_nobody_else_is_asked_again() -> None:
    journal: Journal = []
    told: list[str] = []
    pool = rollout_pool(3, journal)
    engines = put_to_work(pool, told=told)
    pool.lose(1, "generate")
    assert seeds_of(engines.generate(REQUESTS)) == SEEDS
    first_round = [(f"rollout-{i}", REQUESTS[i::3]) for i in range(3)]
    assert asked(journal) == [*first_round, ("rollout-1", REQUESTS[1::3])]
    assert told == ["rollout-1: rollout-1 starts again"]


def test_engines_that_are_lost_together_are_replaced_together_and_count_once() -> None:
    journal: Journal = []
    pool = rollout_pool(3, journal)
    engines = put_to_work(pool, allowed=1)
    pool.lose(0, "generate")
    pool.lose(2, "generate")
    assert seeds_of(engines.generate(REQUESTS)) == SEEDS
    assert [worker for worker, _ in asked(journal)[3:]] == ["rollout-0", "rollout-2"]
    assert starts(journal)[3:] == ["rollout-0", "rollout-2"]


def test_an_engine_that_was_lost_unnoticed_is_replaced_along_with_the_one_that_was_noticed() -> None:
    journal: Journal = []
    pool = rollout_pool(3, journal)
    engines = put_to_work(pool, allowed=1)
    pool.lose(2, "receive")
    pool.outcome(2, "receive", 1, "model")
    engines.replace([WorkerLost("rollout-0", "publish", "it died")])
    assert starts(journal)[3:] == ["rollout-0", "rollout-2"]


losses = st.dictionaries(
    st.integers(0, 2), st.sets(st.integers(1, 3), min_size=1)
)  # which calls of which engine are its last


@given(losses)
def test_whoever_is_lost_responses_are_those_of_an_undisturbed_run_and_each_share_is_asked_for_once_per_loss(
    fatal: dict[int, set[int]],
) -> None:
    journal: Journal = []
    pool = rollout_pool(3, journal)
    engines = put_to_work(pool, allowed=100)
    for index, calls in fatal.items():
        pool.lose(index, "generate", *calls)
    assert seeds_of(engines.generate(REQUESTS)) == SEEDS
    for index in range(3):
        first_answer = next(call for call in range(1, 5) if call not in fatal.get(index, ()))
        shares = [share for worker, share in asked(journal) if worker == f"rollout-{index}"]
        assert shares == [REQUESTS[index::3]] * first_answer


def test_fresh_engines_get_the_weights_that_all_have_before_they_are_asked() -> None:
    journal: Journal = []
    pool = rollout_pool(2, journal)
    engines = put_to_work(pool, refresh=lambda: journal.append(FakeCall(worker="all", method="refresh", args=())))
    pool.lose(0, "generate")
    engines.generate(REQUESTS)
    assert [f"{call.worker} {call.method}" for call in journal[4:]] == [
        "rollout-0 start",
        "all refresh",
        "rollout-0 generate",
    ]


def test_a_successor_that_is_lost_too_is_replaced_until_one_stays_and_every_loss_counts() -> None:
    told: list[str] = []
    journal: Journal = []
    pool = rollout_pool(2, journal)
    engines = put_to_work(pool, allowed=3, told=told)
    pool.lose(1, "generate")
    pool.lose(1, "start", 1, 2)
    assert seeds_of(engines.generate(REQUESTS)) == SEEDS
    assert starts(journal)[2:] == ["rollout-1"] * 3
    assert told == ["rollout-1: rollout-1 starts again"] * 3


def test_an_engine_that_is_lost_while_weights_are_sent_to_its_neighbour_is_replaced_as_well() -> None:
    told: list[str] = []
    journal: Journal = []
    pool = rollout_pool(2, journal)
    engines = put_to_work(pool, refresh=lambda: send(pool), told=told)
    pool.lose(0, "generate")
    pool.lose(1, "receive")
    assert seeds_of(engines.generate(REQUESTS)) == SEEDS
    assert told == ["rollout-0: rollout-0 starts again", "rollout-1: rollout-1 starts again"]


def test_more_losses_than_are_allowed_end_the_run() -> None:
    pool = rollout_pool(2, [])
    engines = put_to_work(pool, allowed=2)
    pool.lose(0, "generate", 1, 2, 3)
    with pytest.raises(RestartsExhausted, match=r"^rollout-0 was lost in generate: it died; 3 losses"):
        engines.generate(REQUESTS)


def test_a_loss_of_another_role_meanwhile_is_raised() -> None:
    def refresh() -> None:
        raise WorkerLost("learner-0", "connect", "it died")

    told: list[str] = []
    pool = rollout_pool(2, [])
    engines = put_to_work(pool, refresh, told=told)
    pool.lose(0, "generate")
    with pytest.raises(WorkerLost, match="learner-0 was lost in connect"):
        engines.generate(REQUESTS)
    assert told == ["rollout-0: rollout-0 starts again"]


def test_engines_are_started_while_the_time_is_used_otherwise_and_have_a_shape_then() -> None:
    journal: Journal = []
    engines = Engines(cast(Any, rollout_pool(2, journal)), Restarts(RestartsConfig(), lambda *_: None), lambda: None)
    with engines.coming_up():
        assert starts(journal) == ["rollout-0", "rollout-1"]
    assert engines.shape == SHAPE
    with engines.coming_up():
        pass
    assert starts(journal) == ["rollout-0", "rollout-1"]


def test_engines_that_did_not_come_up_are_started_the_next_time() -> None:
    journal: Journal = []
    pool = rollout_pool(2, journal)
    engines = Engines(cast(Any, pool), Restarts(RestartsConfig(), lambda *_: None), lambda: None)
    pool.lose(1, "start")
    with pytest.raises(WorkerLost, match="rollout-1 was lost in start"), engines.coming_up():
        pass
    engines.note_lost()
    with engines.coming_up():
        pass
    assert starts(journal)[2:] == ["rollout-0", "rollout-1"]


def test_the_examples_in_the_docstrings_run() -> None:
    results = doctest.testmod(orchestrator.crew.engines)
    assert results.attempted and not results.failed
