"""One worker on a real private Ray: what comes of a call, what it answers while it works, and how it ends."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import ray
from ray.exceptions import RayActorError

from cluster import worker as worker_module
from cluster.placement import Bundle, Slot, reserved
from cluster.worker import Call, Worker, WorkerLost

WITHIN_S = 20.0

pytestmark = pytest.mark.slow


class Refused(ValueError):
    """What the worker below raises."""


class Clerk:
    def __init__(self, start: int) -> None:
        self.value = start

    def add(self, amount: int, *, times: int = 1) -> int:
        self.value += amount * times
        return self.value

    def pid(self) -> int:
        return os.getpid()

    def environment(self, name: str) -> str | None:
        return os.environ.get(name)

    def work(self, seconds: float) -> None:
        time.sleep(seconds)

    def refuse(self) -> None:
        raise Refused("not today")

    def die(self) -> None:
        os._exit(1)

    def ask(self, others: list[Any]) -> int:
        answer: int = ray.get(others[0].pid.remote())
        return answer


Hire = Callable[[str], Worker]


@pytest.fixture(scope="module")
def slots(on_ray: None) -> Iterator[list[Slot]]:
    with reserved([Bundle(role="clerk", cpus=0.1, gpus=0.0)] * 2, timeout_s=30) as slots:
        yield slots


@pytest.fixture
def hire(slots: list[Slot]) -> Iterator[Hire]:
    """Starts workers that count from 7, each in a reserved place."""
    hired: list[Worker] = []

    def start(name: str) -> Worker:
        hired.append(Worker(Clerk, slots[len(hired)], name, (7,), {"MARK": "here"}))
        return hired[-1]

    yield start
    for worker in hired:
        worker.kill()


def came_of(call: Call) -> Any:
    ray.wait([call.ref], timeout=WITHIN_S)
    return call.outcome()


def process_of(worker: Worker) -> psutil.Process:
    return psutil.Process(came_of(worker.call("pid")))


def becomes(process: psutil.Process, *states: str) -> bool:
    """Whether it comes into one of these states soon; gone counts as a zombie."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        if (process.status() if process.is_running() else psutil.STATUS_ZOMBIE) in states:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(("name", "role"), [("rollout-12", "rollout"), ("cold-spare-3", "cold-spare")])
def test_the_role_of_a_lost_worker_is_its_name_without_the_number(name: str, role: str) -> None:
    assert WorkerLost(name, "generate", "it died").role == role


def test_a_loss_is_told_in_one_line_with_worker_call_and_reason() -> None:
    lost = WorkerLost("learner-0", "apply", "no answer in 3 s")
    assert str(lost) == "learner-0 was lost in apply: no answer in 3 s"
    assert (lost.worker, lost.method, lost.reason) == ("learner-0", "apply", "no answer in 3 s")


def test_what_comes_of_a_call_is_its_result_and_shows_that_the_worker_is_up(hire: Hire) -> None:
    worker = hire("clerk-0")
    assert not worker.answered
    assert came_of(worker.call("add", 2, times=10)) == 27
    assert worker.answered


def test_a_worker_has_its_environment_and_knows_where_it_is(hire: Hire) -> None:
    worker = hire("clerk-0")
    assert came_of(worker.call("environment", "MARK")) == "here"
    assert came_of(worker.host()) == "127.0.0.1"


def test_calls_are_answered_in_their_order(hire: Hire) -> None:
    worker = hire("clerk-0")
    calls = [worker.call("add", amount) for amount in (1, 10, 100)]
    assert [came_of(call) for call in calls] == [8, 18, 118]


def test_what_a_worker_raises_comes_of_the_call_with_the_remote_traceback(hire: Hire) -> None:
    raised = came_of(hire("clerk-0").call("refuse"))
    assert isinstance(raised, Refused)
    assert str(raised) == "not today"
    assert "in refuse" in str(raised.__cause__)


def test_a_worker_that_dies_in_a_call_is_lost_in_one_line_with_rays_account_behind_it(hire: Hire) -> None:
    lost = came_of(hire("clerk-0").call("die"))
    assert isinstance(lost, WorkerLost)
    assert (lost.worker, lost.method) == ("clerk-0", "die")
    assert "\n" not in str(lost)
    assert isinstance(lost.__cause__, RayActorError)


def test_who_loses_a_worker_that_it_calls_itself_tells_of_a_loss_and_not_of_rays_errors(hire: Hire) -> None:
    asking, asked = hire("clerk-0"), hire("clerk-1")
    assert isinstance(came_of(asked.call("die")), WorkerLost)
    lost = came_of(asking.call("ask", [asked.handle]))
    assert isinstance(lost, WorkerLost)
    assert (lost.worker, lost.method) == ("clerk-0", "ask")
    assert "\n" not in str(lost)
    assert "in ask" in str(lost.__cause__)


def test_an_answer_that_does_not_arrive_is_a_loss(hire: Hire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "READY_S", 0.1)
    lost = hire("clerk-0").call("work", 60.0).outcome()
    assert isinstance(lost, WorkerLost)
    assert lost.reason == "its answer could not be fetched in 0.1 s"


def test_a_busy_worker_gives_signs_of_life_and_answers_aside(hire: Hire) -> None:
    worker = hire("clerk-0")
    busy = worker.call("work", 60.0)
    assert came_of(worker.ping()) is None
    assert came_of(worker.host()) == "127.0.0.1"
    assert came_of(worker.call_aside("add", 1)) == 8
    assert ray.wait([busy.ref], timeout=0) == ([], [busy.ref])


def test_a_call_aside_that_takes_long_keeps_nobody_from_anything(hire: Hire) -> None:
    worker = hire("clerk-0")
    worker.call_aside("work", 60.0)
    assert came_of(worker.call("add", 1)) == 8
    assert came_of(worker.ping()) is None


def test_a_strike_kills_a_busy_worker_at_once(hire: Hire) -> None:
    worker = hire("clerk-0")
    process = process_of(worker)
    busy = worker.call("work", 60.0)
    worker.strike(signal.SIGKILL)
    assert becomes(process, psutil.STATUS_ZOMBIE)
    assert isinstance(came_of(busy), WorkerLost)


def test_a_strike_stops_a_busy_worker_which_can_be_ended_all_the_same(hire: Hire) -> None:
    worker = hire("clerk-0")
    process = process_of(worker)
    worker.call("work", 60.0)
    worker.strike(signal.SIGSTOP)
    assert becomes(process, psutil.STATUS_STOPPED)
    worker.kill()
    assert becomes(process, psutil.STATUS_ZOMBIE)
