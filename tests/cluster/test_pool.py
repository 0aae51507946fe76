"""Pools on a real private Ray, with a worker class that needs nothing."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import ray

from cluster.pool import Pool
from cluster.waiting import Patience
from cluster.worker import WorkerFailed, WorkerLost

SILENCE_S = 2.0
SLACK_S = 5.0  # a busy machine is slow
PATIENCE = Patience(call_s=60.0, silence_s=SILENCE_S)

pytestmark = pytest.mark.slow


class Refused(ValueError):
    """What the worker below raises."""


class Locked(ValueError):
    """Cannot be packed."""

    def __init__(self) -> None:
        super().__init__("the lock is on")
        self.lock = threading.Lock()


class Counter:
    def __init__(self, start: int) -> None:
        self.start = self.value = start
        self._released = threading.Event()

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def step(self) -> int:
        return self.add(1)

    def pid(self) -> int:
        return os.getpid()

    def environment(self, name: str) -> str | None:
        return os.environ.get(name)

    def work(self, seconds: float) -> float:
        """For so long, or until it is released."""
        self._released.wait(seconds)
        return seconds

    def release(self) -> None:
        self._released.set()

    def reset(self) -> None:
        self._released.clear()
        self.value = self.start

    def refuse(self) -> None:
        raise Refused("not today")

    def refuse_some(self, index: int) -> None:
        if self.value == index:
            raise Locked

    def die(self) -> None:
        if self.value == 2:
            os._exit(1)

    def ask(self, others: list[Any]) -> list[int]:
        answers: list[int] = ray.get([other.pid.remote() for other in others])
        return answers

    def give_up_on_peers(self) -> None:
        raise ConnectionError("connection closed by peer")


def counters(slots: Any, patience: Patience = PATIENCE, **env: str) -> Pool[Counter]:
    """Worker i counts from i; all are up."""
    pool = Pool(Counter, slots, [(i,) for i in range(len(slots))], env=env, patience=patience)
    give_up = time.monotonic() + PATIENCE.call_s
    while not all(worker.has_been_up for worker in pool.workers):
        assert time.monotonic() < give_up
        time.sleep(0.02)
    return pool


def free(pool: Pool[Counter]) -> list[int]:
    """Have the workers end what they are at and count from their start again; the numbers of those who do not."""
    ray.wait([worker.call_aside("release").ref for worker in pool.workers], num_returns=len(pool), timeout=1.0)
    resets = [worker.call("reset") for worker in pool.workers]
    ready, _ = ray.wait([reset.ref for reset in resets], num_returns=len(resets), timeout=1.0)
    return [i for i, reset in enumerate(resets) if reset.ref not in ready or reset.outcome() is not None]


@pytest.fixture(scope="module")
def standing_pool(places: Any) -> Iterator[Pool[Counter]]:
    with places("counter", 3) as slots:
        pool = counters(slots)
        yield pool
        pool.close()


@pytest.fixture
def pool(standing_pool: Pool[Counter]) -> Iterator[Pool[Counter]]:
    """Three workers that are up; whoever is lost in the test gets a successor."""
    yield standing_pool
    standing_pool.respawn(free(standing_pool))
    standing_pool.hosts()


@pytest.fixture(scope="module")
def standing_peers(places: Any) -> Iterator[Pool[Counter]]:
    with places("peer", 2) as slots:
        pool = counters(slots)
        yield pool
        pool.close()


@pytest.fixture(scope="module")
def others(places: Any) -> Iterator[Pool[Counter]]:
    """One worker of another role, with something in its environment."""
    with places("peer", 1) as slots:
        pool = counters(slots, MARK="here")
        yield pool
        pool.close()


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
        time.sleep(0.02)


Lose = Callable[[Pool[Counter], int], None]


@pytest.fixture(scope="module", params=[kill, stop])
def peers(standing_peers: Pool[Counter], request: pytest.FixtureRequest) -> Pool[Counter]:
    """Two workers of another role; the second is lost, and stays so, before it was ever called."""
    standing_peers.respawn(free(standing_peers))
    standing_peers.hosts()
    lose: Lose = request.param
    lose(standing_peers, 1)
    return standing_peers


def process_of(pool: Pool[Counter], index: int) -> psutil.Process:
    process = pool.workers[index]._process_here()
    assert process is not None
    return process


def processes(pool: Pool[Counter]) -> list[psutil.Process]:
    return [process_of(pool, index) for index in range(len(pool))]


def gone(process: psutil.Process) -> bool:
    """Whether it is, or will be soon."""
    until = time.monotonic() + SLACK_S
    while time.monotonic() < until:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


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


def test_workers_have_an_address_and_the_environment_they_were_given(
    pool: Pool[Counter], others: Pool[Counter]
) -> None:
    assert pool.hosts() == ["127.0.0.1"] * 3
    assert pool.broadcast(Counter.environment, "MARK") == [None] * 3
    assert others.first(Counter.environment, "MARK") == "here"


def test_a_busy_worker_answers_aside_and_is_waited_for_as_long_as_the_call_says(pool: Pool[Counter]) -> None:
    pool.workers[0].call("work", 60.0)
    assert pool.aside(Counter.add, 10, call_s=60.0) == [10, 11, 12]
    assert pool.lost() == []
    started = time.monotonic()
    with pytest.raises(WorkerLost, match=r"counter-\d was lost in work: no answer in 0.5 s"):
        pool.aside(Counter.work, 1.0, call_s=0.5)
    assert time.monotonic() - started < 0.5 + SLACK_S
    assert pool.begin_some(Counter.step, [1, 2])() == [12, 13]


def test_what_a_worker_raises_keeps_its_type_and_the_remote_traceback(pool: Pool[Counter]) -> None:
    with pytest.raises(Refused, match="not today") as raised:
        pool.broadcast(Counter.refuse)
    assert "in refuse" in str(raised.value.__cause__)


def test_what_a_worker_raises_is_no_loss_also_in_an_attempt_and_when_it_cannot_be_brought_here(
    pool: Pool[Counter],
) -> None:
    items: Any = {0: 1, 1: "one"}
    with pytest.raises(TypeError, match="unsupported operand"):
        pool.attempt(Counter.add, items)
    for call in (lambda: pool.broadcast(Counter.refuse_some, 2), lambda: pool.attempt(Counter.refuse_some, {2: 2})):
        with pytest.raises(WorkerFailed, match=r"^counter-2 failed in refuse_some: .*Locked: the lock is on$"):
            call()
    assert pool.lost() == []


def test_a_worker_that_dies_is_named_with_the_call_it_did_not_answer(pool: Pool[Counter]) -> None:
    with pytest.raises(WorkerLost) as raised:
        pool.broadcast(Counter.die)
    assert (raised.value.worker, raised.value.role, raised.value.method) == ("counter-2", "counter", "die")
    assert "\n" not in str(raised.value)


def test_an_attempt_notices_losses_in_its_midst(pool: Pool[Counter]) -> None:
    struck = threading.Timer(0.3, pool.strike, [1, signal.SIGKILL])
    struck.start()
    results, lost = pool.attempt(Counter.work, {0: 0.0, 1: 60.0, 2: 2.0})
    assert results == {0: 0.0, 2: 2.0}
    assert [one.worker for one in lost] == ["counter-1"]


def test_the_lost_get_fresh_successors_in_the_same_places(pool: Pool[Counter]) -> None:
    pool.broadcast(Counter.add, 10)
    before = processes(pool)
    kill(pool, 0)
    stop(pool, 1)
    slots = list(pool._slots)
    pool.respawn([0, 1])
    assert gone(before[0])
    assert gone(before[1])
    assert pool.broadcast(Counter.add, 1) == [1, 2, 13]
    assert pool.names == ["counter-0", "counter-1", "counter-2"]
    assert pool._slots == slots
    after = processes(pool)
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, False, True]
    assert pool.lost() == []


def test_those_who_call_workers_of_another_role_reach_them_and_their_successors(
    pool: Pool[Counter], others: Pool[Counter]
) -> None:
    pids = others.broadcast(Counter.pid)
    assert pool.needing(others).broadcast(Counter.ask, others.handles) == [pids] * 3
    others.respawn([0])
    fresh = others.broadcast(Counter.pid)
    assert fresh != pids
    assert pool.needing(others).broadcast(Counter.ask, others.handles) == [fresh] * 3
    assert others.first(Counter.environment, "MARK") == "here"


def test_a_roll_call_names_who_is_lost_within_a_bound(peers: Pool[Counter]) -> None:
    started = time.monotonic()
    assert [one.worker for one in peers.lost()] == ["peer-1"]
    assert time.monotonic() - started < SILENCE_S + SLACK_S


def test_an_attempt_has_the_answers_of_the_living_and_names_the_lost(peers: Pool[Counter]) -> None:
    started = time.monotonic()
    results, lost = peers.attempt(Counter.work, {0: 0.1, 1: 0.1})
    assert results == {0: 0.1}
    assert [(one.worker, one.method) for one in lost] == [("peer-1", "work")]
    assert time.monotonic() - started < SILENCE_S + SLACK_S


def test_who_is_lost_is_found_although_the_others_are_busy(peers: Pool[Counter]) -> None:
    started = time.monotonic()
    with pytest.raises(WorkerLost, match="peer-1 was lost in work: "):
        peers.broadcast(Counter.work, 60.0)
    assert time.monotonic() - started < 2 * SILENCE_S + SLACK_S  # once in the call, once to see who else is lost
    peers.workers[0].call_aside("release")


def test_a_loss_among_those_whom_workers_call_ends_the_waiting_and_is_named(
    pool: Pool[Counter], peers: Pool[Counter]
) -> None:
    started = time.monotonic()
    with pytest.raises(WorkerLost, match="peer-1 was lost in ask: "):
        pool.needing(peers).broadcast(Counter.ask, peers.handles)
    assert time.monotonic() - started < 2 * SILENCE_S + SLACK_S


def test_what_a_worker_raises_because_a_peer_is_lost_is_told_as_the_loss_of_the_peer(peers: Pool[Counter]) -> None:
    with pytest.raises(WorkerLost, match="peer-1 was lost in give_up_on_peers: ") as raised:
        peers.first(Counter.give_up_on_peers)
    assert isinstance(raised.value.__cause__, ConnectionError)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("peers", [kill], indirect=True)
def test_what_a_worker_raises_because_one_whom_it_calls_is_lost_is_told_as_the_loss_of_that_one(
    pool: Pool[Counter], peers: Pool[Counter]
) -> None:
    with pytest.raises(WorkerLost, match="peer-1 was lost in give_up_on_peers: ") as raised:
        pool.needing(peers).first(Counter.give_up_on_peers)
    assert isinstance(raised.value.__cause__, ConnectionError)


@pytest.mark.parametrize("peers", [kill], indirect=True)
def test_who_is_not_needed_may_be_lost_unnoticed(pool: Pool[Counter], peers: Pool[Counter]) -> None:
    pool.needing(peers)
    assert pool.broadcast(Counter.work, 0.75 * SILENCE_S) == [0.75 * SILENCE_S] * 3


def test_a_worker_that_takes_longer_than_a_call_may_is_lost_and_a_closed_pool_leaves_no_process(places: Any) -> None:
    with places("counter", 2) as slots:
        pool = counters(slots, Patience(call_s=1.0, silence_s=SILENCE_S))
        started = time.monotonic()
        with pytest.raises(WorkerLost, match=r"counter-\d was lost in work: no answer in 1 s"):
            pool.broadcast(Counter.work, 60.0)
        assert time.monotonic() - started < 1.0 + SLACK_S
        running = processes(pool)
        stop(pool, 0)
        pool.close()  # one is busy, the other stopped
        assert [gone(process) for process in running] == [True] * 2
