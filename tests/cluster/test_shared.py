"""Workers that share processes, on a real private Ray: each has its own thread, order and state, and one end."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
import ray
from ray._private.state import actors

from cluster.placement import Slot, reserved
from cluster.plan import Bundle, Plan, Seat
from cluster.pool import Pool
from cluster.shared import Member
from cluster.waiting import Patience
from cluster.worker import WorkerLost

PATIENCE = Patience(call_s=60.0, silence_s=2.0)

pytestmark = pytest.mark.slow


class Clerk:
    """Counts, waits, and asks its peers."""

    def __init__(self, start: int) -> None:
        self.value = start
        self._released = threading.Event()

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def pid(self) -> int:
        return os.getpid()

    def work(self, seconds: float) -> float:
        self._released.wait(seconds)
        return seconds

    def release(self, item: None) -> None:
        self._released.set()

    def refuse(self) -> None:
        raise ValueError("not today")

    def ask(self, peers: Sequence[Member]) -> list[object]:
        asked = [peer.ask("add", 100) for peer in peers]
        return [answer() for answer in asked]


@pytest.fixture(scope="module")
def slots(on_ray: None) -> Iterator[Sequence[Slot]]:
    bundle = Bundle(seats=(Seat(role="clerk", cpus=0.02, gpus=0.0),))
    with reserved(Plan(bundles=(bundle,) * 5, name="shared"), timeout_s=30) as slots:
        yield slots["clerk"]


@pytest.fixture(scope="module")
def pool(slots: Sequence[Slot]) -> Iterator[Pool[Clerk]]:
    """Five clerks in three processes; the tests leave them all up."""
    pool = Pool(
        Clerk, slots, [(i,) for i in range(5)], env={"MARK": "here"}, patience=PATIENCE, per_process=2, title="demo"
    )
    yield pool
    pool.close()


def names_in_ray(pool: Pool[Clerk]) -> list[tuple[str, str]]:
    """Name and class that Ray shows of each process, once."""
    infos = {worker.handle._actor_id.hex(): actors(worker.handle._actor_id.hex()) for worker in pool.workers}
    return [(info["Name"], info["ActorClassName"]) for info in infos.values()]


def test_workers_share_processes_by_their_numbers_and_have_a_state_of_their_own(pool: Pool[Clerk]) -> None:
    pids = pool.broadcast(Clerk.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert pool.broadcast(Clerk.add, 10) == [10, 11, 12, 13, 14]
    assert pool.scatter(Clerk.add, [-10] * 5) == [0, 1, 2, 3, 4]
    assert pool.attempt(Clerk.add, {1: 5, 3: 5}) == ({1: 6, 3: 8}, [])
    assert pool.scatter(Clerk.add, [0, -5, 0, -5, 0]) == [0, 1, 2, 3, 4]
    assert pool.hosts() == ["127.0.0.1"] * 5


def test_one_that_works_does_not_keep_the_other_of_its_process_waiting_and_keeps_its_own_order(
    pool: Pool[Clerk],
) -> None:
    busy = pool.workers[0].call("work", 60.0)
    behind = pool.workers[0].call("add", 1)
    assert pool.attempt(Clerk.add, {1: 0})[0] == {1: 1}
    assert pool.lost() == []
    assert not ray.wait([behind.ref], timeout=0)[0]
    pool.aside(Clerk.release, None, call_s=10.0)
    assert (busy.outcome(), behind.outcome()) == (60.0, 1)
    assert pool.workers[0].send("add", -1).outcome() == 0


def test_what_one_raises_is_no_loss_of_the_others(pool: Pool[Clerk]) -> None:
    with pytest.raises(ValueError, match="not today"):
        pool.broadcast(Clerk.refuse)
    assert pool.lost() == []


def test_workers_of_another_role_reach_each_member(pool: Pool[Clerk]) -> None:
    assert pool.first(Clerk.ask, pool.handles[2:]) == [102, 103, 104]
    assert pool.scatter(Clerk.add, [0, 0, -100, -100, -100]) == [0, 1, 2, 3, 4]


def test_ray_shows_class_role_number_and_title_of_a_process_and_no_name_twice(pool: Pool[Clerk]) -> None:
    pool.hosts()
    before = names_in_ray(pool)
    assert [name.rpartition(" ")[0] for name, _ in before] == ["clerk-0..1 demo", "clerk-2..3 demo", "clerk-4 demo"]
    assert {shown for _, shown in before} == {"Clerk"}
    assert pool.respawn([4]) == {4}
    pool.hosts()
    assert len(dict([*before, *names_in_ray(pool)])) == 4


def test_the_end_of_one_is_that_of_its_process_and_all_of_it_is_replaced(pool: Pool[Clerk]) -> None:
    pool.broadcast(Clerk.add, 1)
    pool.strike(3, signal.SIGKILL)
    give_up = time.monotonic() + 20
    while len(lost := {one.worker for one in pool.lost()}) < 2:
        assert time.monotonic() < give_up
    assert lost == {"clerk-2", "clerk-3"}
    with pytest.raises(WorkerLost, match=r"clerk-[23] was lost in add"):
        pool.broadcast(Clerk.add, 0)
    assert pool.respawn([3]) == {2, 3}
    assert pool.broadcast(Clerk.add, 0) == [1, 2, 2, 3, 5]
    assert pool.names == [f"clerk-{i}" for i in range(5)]
