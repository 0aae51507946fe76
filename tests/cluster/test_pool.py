"""Pools on a real private Ray, with a worker class that needs nothing."""

import os
import time
from collections.abc import Iterator

import pytest

from cluster.config import ClusterConfig
from cluster.placement import Bundle, PlacementError, reserved
from cluster.pool import Pool
from cluster.session import num_nodes, resources, session
from cluster.waiting import Patience
from cluster.worker import WorkerLost

BUNDLE = Bundle(role="counter", cpus=0.1, gpus=0.0)

pytestmark = pytest.mark.slow


class Refused(ValueError):
    """What the worker below raises."""


class Counter:
    def __init__(self, start: int) -> None:
        self.value = start

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def environment(self, name: str) -> str | None:
        return os.environ.get(name)

    def refuse(self) -> None:
        raise Refused("not today")

    def die(self) -> None:
        if self.value == 2:
            os._exit(1)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@pytest.fixture(scope="module")
def on_ray() -> Iterator[None]:
    with session(ClusterConfig()):
        yield


@pytest.fixture
def pool(on_ray: None) -> Iterator[Pool[Counter]]:
    with reserved([BUNDLE] * 3, timeout_s=30) as slots:
        counters = Pool(
            Counter, slots, [(i,) for i in range(3)], env={"MARK": "here"}, patience=Patience(call_s=3, silence_s=1)
        )
        counters.broadcast(Counter.add, 0)  # up
        yield counters
        counters.close()


def test_a_private_ray_is_one_node(on_ray: None) -> None:
    assert num_nodes() == 1
    assert resources()["CPU"] >= 1


def test_results_come_back_in_worker_order(pool: Pool[Counter]) -> None:
    assert len(pool) == 3
    assert pool.broadcast(Counter.add, 10) == [10, 11, 12]
    assert pool.scatter(Counter.add, [100, 200, 300]) == [110, 211, 312]
    assert pool.first(Counter.add, 1) == 111


def test_a_call_that_has_begun_can_be_waited_for_later(pool: Pool[Counter]) -> None:
    later = pool.begin(Counter.add, 5)
    assert pool.broadcast(Counter.add, 1) == [6, 7, 8]
    assert later() == [5, 6, 7]


def test_workers_have_the_environment_they_were_given_and_an_address(pool: Pool[Counter]) -> None:
    assert pool.broadcast(Counter.environment, "MARK") == ["here"] * 3
    assert pool.hosts() == ["127.0.0.1"] * 3


def test_what_a_worker_raises_keeps_its_type_and_the_remote_traceback(pool: Pool[Counter]) -> None:
    with pytest.raises(Refused, match="not today") as raised:
        pool.broadcast(Counter.refuse)
    assert "in refuse" in str(raised.value.__cause__)


def test_a_worker_that_dies_is_named_with_the_call_it_did_not_answer(pool: Pool[Counter]) -> None:
    with pytest.raises(WorkerLost) as raised:
        pool.broadcast(Counter.die)
    assert (raised.value.worker, raised.value.method) == ("counter-2", "die")
    assert "\n" not in str(raised.value)


def test_a_worker_that_falls_silent_is_lost_within_the_time_limit(pool: Pool[Counter]) -> None:
    started = time.monotonic()
    with pytest.raises(WorkerLost, match=r"counter-0 was lost in sleep: no answer in 3 s"):
        pool.broadcast(Counter.sleep, 60.0)
    assert time.monotonic() - started < 30


def test_a_plan_that_cannot_fit_is_refused_with_what_is_missing(on_ray: None) -> None:
    with (
        pytest.raises(PlacementError, match=r"lacks 1 GPU: needs 1 x learner \(1 CPU, 1 GPU\)"),
        reserved([Bundle(role="learner", cpus=1, gpus=1)], timeout_s=1),
    ):
        raise AssertionError("there is no GPU to be had")
