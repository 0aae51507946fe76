"""Pools on a real private Ray, with a worker class that needs nothing."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import ray

from cluster.placement import Bundle, PlacementError, reserved
from cluster.pool import Pool
from cluster.session import num_nodes, resources
from cluster.waiting import Patience
from cluster.worker import WorkerLost

COUNTER = Bundle(role="counter", cpus=0.1, gpus=0.0)
PEER = Bundle(role="peer", cpus=0.1, gpus=0.0)
SILENCE_S = 2.0
SLACK_S = 10.0  # a busy machine is slow, and Ray takes some seconds to end a stopped process
PATIENCE = Patience(call_s=60.0, silence_s=SILENCE_S)

pytestmark = pytest.mark.slow


class Refused(ValueError):
    """What the worker below raises."""


class Counter:
    def __init__(self, start: int) -> None:
        self.start = self.value = start

    def reset(self) -> None:
        self.value = self.start

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def step(self) -> int:
        return self.add(1)

    def pid(self) -> int:
        return os.getpid()

    def environment(self, name: str) -> str | None:
        return os.environ.get(name)

    def refuse(self) -> None:
        raise Refused("not today")

    def die(self) -> None:
        if self.value == 2:
            os._exit(1)

    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def ask(self, others: list[Any]) -> list[int]:
        answers: list[int] = ray.get([other.pid.remote() for other in others])
        return answers

    def give_up_on_peers(self) -> None:
        raise ConnectionError("connection closed by peer")


def counters(slots: Any, patience: Patience = PATIENCE) -> Pool[Counter]:
    """Worker i counts from i; all are up."""
    pool = Pool(Counter, slots, [(i,) for i in range(len(slots))], env={"MARK": "here"}, patience=patience)
    pool.broadcast(Counter.pid)
    return pool


def made_whole(pool: Pool[Counter]) -> Iterator[Pool[Counter]]:
    """The pool; whoever is lost or still busy after the test gets a successor."""
    yield pool
    resets = [worker.call("reset") for worker in pool.workers]
    answered, _ = ray.wait([reset.ref for reset in resets], num_returns=len(resets), timeout=1.0)
    outcomes = [reset.outcome() if reset.ref in answered else reset for reset in resets]
    pool.respawn(index for index, outcome in enumerate(outcomes) if outcome is not None)
    pool.broadcast(Counter.pid)


@pytest.fixture(scope="module")
def standing_pool(on_ray: None) -> Iterator[Pool[Counter]]:
    with reserved([COUNTER] * 3, timeout_s=30) as slots:
        pool = counters(slots)
        yield pool
        pool.close()


@pytest.fixture(scope="module")
def standing_peers(on_ray: None) -> Iterator[Pool[Counter]]:
    with reserved([PEER] * 2, timeout_s=30) as slots:
        pool = counters(slots)
        yield pool
        pool.close()


@pytest.fixture
def pool(standing_pool: Pool[Counter]) -> Iterator[Pool[Counter]]:
    """Three counters that are up."""
    yield from made_whole(standing_pool)


@pytest.fixture
def peers(standing_peers: Pool[Counter]) -> Iterator[Pool[Counter]]:
    """Two workers of another role, up as well."""
    yield from made_whole(standing_peers)


def process_of(pool: Pool[Counter], index: int) -> psutil.Process:
    return psutil.Process(pool.workers[index].call("pid").outcome())


def processes(pool: Pool[Counter]) -> list[psutil.Process]:
    return [process_of(pool, index) for index in range(len(pool))]


def gone(process: psutil.Process) -> bool:
    """Whether it is, or will be soon."""
    until = time.monotonic() + SLACK_S
    while time.monotonic() < until:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def kill(pool: Pool[Counter], index: int) -> None:
    """Returns when it is gone."""
    process = process_of(pool, index)
    pool.strike(index, signal.SIGKILL)
    assert gone(process)


def stop(pool: Pool[Counter], index: int) -> None:
    """Returns when it is stopped."""
    process = process_of(pool, index)
    pool.strike(index, signal.SIGSTOP)
    until = time.monotonic() + SLACK_S
    while process.status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_private_ray_is_one_node(on_ray: None) -> None:
    assert num_nodes() == 1
    assert resources()["CPU"] >= 1


def test_results_come_back_in_worker_order(pool: Pool[Counter]) -> None:
    assert len(pool) == 3
    assert pool.names == ["counter-0", "counter-1", "counter-2"]
    assert pool.broadcast(Counter.add, 10) == [10, 11, 12]
    assert pool.scatter(Counter.add, [100, 200, 300]) == [110, 211, 312]
    assert pool.first(Counter.add, 1) == 111
    assert pool.attempt(Counter.add, {2: 1, 0: 2}) == ({2: 313, 0: 113}, [])


def test_a_call_that_has_begun_can_be_waited_for_later(pool: Pool[Counter]) -> None:
    later = pool.begin(Counter.add, 5)
    of_some = pool.begin_some(Counter.step, [2, 0])
    assert pool.broadcast(Counter.add, 1) == [7, 7, 9]
    assert later() == [5, 6, 7]
    assert of_some() == [8, 6]


def test_nobody_to_call_has_nothing_to_say(pool: Pool[Counter]) -> None:
    assert pool.begin_some(Counter.step, [])() == []
    assert pool.attempt(Counter.add, {}) == ({}, [])


def test_workers_have_the_environment_they_were_given_and_an_address(pool: Pool[Counter]) -> None:
    assert pool.broadcast(Counter.environment, "MARK") == ["here"] * 3
    assert pool.hosts() == ["127.0.0.1"] * 3


def test_a_busy_worker_answers_aside(pool: Pool[Counter]) -> None:
    pool.workers[0].call("sleep", 60.0)
    assert pool.aside(Counter.add, 10) == [10, 11, 12]
    assert pool.lost() == []


def test_what_a_worker_raises_keeps_its_type_and_the_remote_traceback(pool: Pool[Counter]) -> None:
    with pytest.raises(Refused, match="not today") as raised:
        pool.broadcast(Counter.refuse)
    assert "in refuse" in str(raised.value.__cause__)


def test_a_worker_that_dies_is_named_with_the_call_it_did_not_answer(pool: Pool[Counter]) -> None:
    with pytest.raises(WorkerLost) as raised:
        pool.broadcast(Counter.die)
    assert (raised.value.worker, raised.value.role, raised.value.method) == ("counter-2", "counter", "die")
    assert "\n" not in str(raised.value)


def test_a_worker_that_takes_longer_than_a_call_may_is_lost(on_ray: None) -> None:
    with reserved([COUNTER], timeout_s=30) as slots:
        pool = counters(slots, Patience(call_s=3.0, silence_s=SILENCE_S))
        started = time.monotonic()
        with pytest.raises(WorkerLost, match=r"counter-0 was lost in sleep: no answer in 3 s"):
            pool.broadcast(Counter.sleep, 60.0)
        assert time.monotonic() - started < 3.0 + SLACK_S
        pool.close()


def test_a_stopped_worker_is_found_although_the_others_are_busy(pool: Pool[Counter]) -> None:
    stop(pool, 1)
    started = time.monotonic()
    with pytest.raises(WorkerLost, match="counter-1 was lost in sleep: no sign of life for 2 s"):
        pool.broadcast(Counter.sleep, 60.0)
    assert time.monotonic() - started < 2 * SILENCE_S + SLACK_S  # once in the call, once to see who else is lost


def test_an_attempt_has_the_answers_of_the_living_and_names_the_lost(pool: Pool[Counter]) -> None:
    kill(pool, 0)
    stop(pool, 2)
    results, lost = pool.attempt(Counter.sleep, {0: 6.0, 1: 6.0, 2: 6.0})
    assert results == {1: 6.0}
    assert {one.worker for one in lost} == {"counter-0", "counter-2"}


def test_an_attempt_notices_losses_in_its_midst(pool: Pool[Counter]) -> None:
    struck = threading.Timer(1.0, pool.strike, [1, signal.SIGKILL])
    struck.start()
    results, lost = pool.attempt(Counter.sleep, {0: 0.0, 1: 6.0, 2: 6.0})
    assert results == {0: 0.0, 2: 6.0}
    assert [one.worker for one in lost] == ["counter-1"]


def test_what_a_worker_raises_in_an_attempt_is_no_loss(pool: Pool[Counter]) -> None:
    items: Any = {0: 1, 1: "one"}
    with pytest.raises(TypeError, match="unsupported operand"):
        pool.attempt(Counter.add, items)


def test_a_roll_call_names_all_who_are_lost_within_a_bound(pool: Pool[Counter]) -> None:
    kill(pool, 0)
    stop(pool, 1)
    started = time.monotonic()
    assert {one.worker for one in pool.lost()} == {"counter-0", "counter-1"}
    assert time.monotonic() - started < SILENCE_S + SLACK_S


@pytest.mark.parametrize("lose", [kill, stop])
def test_a_lost_worker_gets_a_fresh_successor_in_the_same_place(pool: Pool[Counter], lose: Any) -> None:
    pool.broadcast(Counter.add, 10)
    before = processes(pool)
    lose(pool, 1)
    slot = pool._slots[1]
    pool.respawn([1])
    assert pool.broadcast(Counter.add, 1) == [11, 2, 13]
    assert pool.names == ["counter-0", "counter-1", "counter-2"]
    assert pool._slots[1] is slot
    assert pool.broadcast(Counter.environment, "MARK") == ["here"] * 3
    after = processes(pool)
    assert (before[0], before[2]) == (after[0], after[2])
    assert before[1] != after[1]
    assert gone(before[1])
    assert pool.lost() == []


def test_those_who_call_workers_of_another_role_reach_them(pool: Pool[Counter], peers: Pool[Counter]) -> None:
    pids = peers.broadcast(Counter.pid)
    assert pool.needing(peers).broadcast(Counter.ask, peers.handles) == [pids] * 3
    peers.respawn([0])
    fresh = peers.broadcast(Counter.pid)
    assert fresh[0] != pids[0]
    assert pool.needing(peers).broadcast(Counter.ask, peers.handles) == [fresh] * 3


@pytest.mark.parametrize("lose", [kill, stop])
def test_a_loss_among_those_whom_workers_call_ends_the_waiting_and_is_named(
    pool: Pool[Counter], peers: Pool[Counter], lose: Any
) -> None:
    lose(peers, 1)
    started = time.monotonic()
    with pytest.raises(WorkerLost, match="peer-1 was lost in ask: "):
        pool.needing(peers).broadcast(Counter.ask, peers.handles)
    assert time.monotonic() - started < 2 * SILENCE_S + SLACK_S


def test_who_is_not_needed_may_be_lost_unnoticed(pool: Pool[Counter], peers: Pool[Counter]) -> None:
    pool.needing(peers)
    kill(peers, 0)
    assert pool.broadcast(Counter.sleep, 1.5) == [1.5] * 3


@pytest.mark.parametrize("lose", [kill, stop])
def test_what_a_worker_raises_because_a_peer_is_lost_is_told_as_the_loss_of_the_peer(
    pool: Pool[Counter], lose: Any
) -> None:
    lose(pool, 2)
    with pytest.raises(WorkerLost, match="counter-2 was lost in give_up_on_peers: ") as raised:
        pool.first(Counter.give_up_on_peers)
    assert isinstance(raised.value.__cause__, ConnectionError)
    assert "\n" not in str(raised.value)


def test_what_a_worker_raises_because_one_whom_it_calls_is_lost_is_told_as_the_loss_of_that_one(
    pool: Pool[Counter], peers: Pool[Counter]
) -> None:
    kill(peers, 1)
    with pytest.raises(WorkerLost, match="peer-1 was lost in give_up_on_peers: ") as raised:
        pool.needing(peers).first(Counter.give_up_on_peers)
    assert isinstance(raised.value.__cause__, ConnectionError)


def test_a_closed_pool_leaves_no_process_not_even_a_stopped_one(on_ray: None) -> None:
    with reserved([COUNTER] * 2, timeout_s=30) as slots:
        pool = counters(slots)
        started = processes(pool)
        stop(pool, 0)
        pool.close()
        assert [gone(process) for process in started] == [True] * 2


def test_a_plan_that_cannot_fit_is_refused_with_what_is_missing(on_ray: None) -> None:
    with (
        pytest.raises(PlacementError, match=r"lacks 1 GPU: needs 1 x learner \(1 CPU, 1 GPU\)"),
        reserved([Bundle(role="learner", cpus=1, gpus=1)], timeout_s=1),
    ):
        raise AssertionError("there is no GPU to be had")
