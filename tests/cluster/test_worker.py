"""One worker on a real private Ray: what comes of a call, what it answers while it works, and how it ends."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import ray
from ray.exceptions import RayActorError

from cluster import worker as worker_module
from cluster.placement import Slot
from cluster.worker import Call, Worker, WorkerFailed, WorkerLost

WITHIN_S = 20.0
START = 7  # what the workers below count from

pytestmark = pytest.mark.slow


class Refused(ValueError):
    """What the worker below raises."""


class Locked(ValueError):
    """Cannot be packed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class Exact(ValueError):
    """Can be packed, and not be put together again."""

    def __init__(self, got: int, expected: int) -> None:
        super().__init__(f"got {got}, expected {expected}")


class Clerk:
    def __init__(self, start: int) -> None:
        self.start = self.value = start
        self._released = threading.Event()

    def add(self, amount: int, *, times: int = 1) -> int:
        self.value += amount * times
        return self.value

    def environment(self, name: str) -> str | None:
        return os.environ.get(name)

    def work(self) -> None:
        """Until it is released."""
        self._released.wait()

    def release(self) -> None:
        self._released.set()

    def reset(self) -> None:
        self._released.clear()
        self.value = self.start

    def refuse(self) -> None:
        raise Refused("not today")

    def refuse_as_locked(self) -> None:
        raise Locked("the lock is on")

    def refuse_exactly(self) -> None:
        raise Exact(3, expected=4)

    def die(self) -> None:
        os._exit(1)

    def ask(self, others: list[Any]) -> str | None:
        answer: str | None = ray.get(others[0].environment.remote("MARK"))
        return answer


@pytest.fixture(scope="module")
def slots(places: Any) -> Iterator[list[Slot]]:
    with places("clerk", 3) as slots:
        yield slots


def hired(slot: Slot, **env: str) -> Iterator[Worker]:
    worker = Worker(Clerk, slot, f"clerk-{slot.index}", (START,), env)
    yield worker
    worker.kill()


@pytest.fixture(scope="module")
def standing(slots: list[Slot]) -> Iterator[Worker]:
    yield from hired(slots[0], MARK="here")


@pytest.fixture
def clerk(standing: Worker) -> Iterator[Worker]:
    """A worker that counts from START and is at nothing."""
    yield standing
    came_of(standing.call_aside("release"))
    came_of(standing.call("reset"))


@pytest.fixture(scope="module")
def leaving(slots: list[Slot]) -> Iterator[Worker]:
    """One that dies in the first test that asks for it."""
    yield from hired(slots[1])


@pytest.fixture
def fresh(slots: list[Slot]) -> Iterator[Worker]:
    """One that may be on its way up yet, and that nobody needs after the test."""
    yield from hired(slots[2])


def came_of(call: Call) -> Any:
    ray.wait([call.ref], timeout=WITHIN_S)
    return call.outcome()


def process_of(worker: Worker) -> psutil.Process:
    """Of one that is up."""
    assert came_of(worker.ping()) is None
    process = worker._process_here()
    assert process is not None
    return process


def becomes(process: psutil.Process, state: str, within_s: float = WITHIN_S) -> bool:
    """Whether it comes into this state soon; gone counts as a zombie."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if (process.status() if process.is_running() else psutil.STATUS_ZOMBIE) == state:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(("name", "role"), [("rollout-12", "rollout"), ("cold-spare-3", "cold-spare")])
def test_the_role_of_a_lost_worker_is_its_name_without_the_number(name: str, role: str) -> None:
    assert WorkerLost(name, "generate", "it died").role == role


def test_a_loss_is_told_in_one_line_with_worker_call_and_reason() -> None:
    lost = WorkerLost("learner-0", "apply", "no answer in 3 s")
    assert str(lost) == "learner-0 was lost in apply: no answer in 3 s"
    assert (lost.worker, lost.method, lost.reason) == ("learner-0", "apply", "no answer in 3 s")


def test_what_comes_of_a_call_is_its_result(clerk: Worker) -> None:
    assert came_of(clerk.call("add", 2, times=10)) == START + 20


def test_a_worker_has_its_environment_and_knows_where_it_is(clerk: Worker) -> None:
    assert came_of(clerk.call("environment", "MARK")) == "here"
    assert came_of(clerk.host()) == "127.0.0.1"


def test_calls_are_answered_in_their_order(clerk: Worker) -> None:
    calls = [clerk.call("add", amount) for amount in (1, 10, 100)]
    assert [came_of(call) for call in calls] == [START + 1, START + 11, START + 111]


def test_what_a_worker_raises_comes_of_the_call_with_the_remote_traceback(clerk: Worker) -> None:
    raised = came_of(clerk.call("refuse"))
    assert isinstance(raised, Refused)
    assert str(raised) == "not today"
    assert "in refuse" in str(raised.__cause__)


@pytest.mark.parametrize(
    ("method", "told"),
    [("refuse_as_locked", "Locked: the lock is on"), ("refuse_exactly", "Exact: got 3, expected 4")],
)
def test_what_a_worker_raises_that_does_not_survive_the_way_here_is_told_in_one_line_and_no_loss(
    clerk: Worker, method: str, told: str
) -> None:
    failed = came_of(clerk.call(method))
    assert isinstance(failed, WorkerFailed)
    assert re.fullmatch(rf"clerk-0 failed in {method}: [\w.]+\.{told}", str(failed))
    assert f"in {method}" in str(failed.__cause__)
    assert came_of(clerk.call("add", 1)) == START + 1


def test_a_worker_that_dies_in_a_call_is_lost_in_one_line_with_rays_account_behind_it(leaving: Worker) -> None:
    lost = came_of(leaving.call("die"))
    assert isinstance(lost, WorkerLost)
    assert (lost.worker, lost.method) == ("clerk-1", "die")
    assert "\n" not in str(lost)
    assert isinstance(lost.__cause__, RayActorError)


def test_who_loses_a_worker_that_it_calls_itself_tells_of_a_loss_and_not_of_rays_errors(
    clerk: Worker, leaving: Worker
) -> None:
    assert isinstance(came_of(leaving.call("die")), WorkerLost)
    lost = came_of(clerk.call("ask", [leaving.handle]))
    assert isinstance(lost, WorkerLost)
    assert (lost.worker, lost.method) == ("clerk-0", "ask")
    assert "\n" not in str(lost)
    assert "in ask" in str(lost.__cause__)


def test_an_answer_that_does_not_arrive_is_a_loss(clerk: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "READY_S", 0.1)
    lost = clerk.call("work").outcome()
    monkeypatch.undo()
    assert isinstance(lost, WorkerLost)
    assert lost.reason == "its answer could not be fetched in 0.1 s"


def test_a_busy_worker_gives_signs_of_life_and_answers_aside(clerk: Worker) -> None:
    busy = clerk.call("work")
    assert came_of(clerk.ping()) is None
    assert came_of(clerk.host()) == "127.0.0.1"
    assert came_of(clerk.call_aside("add", 1)) == START + 1
    assert ray.wait([busy.ref], timeout=0) == ([], [busy.ref])


def test_a_call_aside_that_takes_long_keeps_nobody_from_anything(clerk: Worker) -> None:
    aside = clerk.call_aside("work")
    assert came_of(clerk.call("add", 1)) == START + 1
    assert came_of(clerk.ping()) is None
    assert ray.wait([aside.ref], timeout=0) == ([], [aside.ref])
    assert came_of(clerk.call("release")) is None


def test_a_worker_has_been_up_once_it_could_answer_though_it_was_never_called(fresh: Worker) -> None:
    assert not fresh.has_been_up
    until = time.monotonic() + WITHIN_S
    while not fresh.has_been_up and time.monotonic() < until:
        time.sleep(0.02)
    process = process_of(fresh)
    fresh.strike(signal.SIGKILL)
    assert becomes(process, psutil.STATUS_ZOMBIE)
    assert fresh.has_been_up
    assert isinstance(came_of(fresh.ping()), WorkerLost)


def test_a_strike_kills_a_busy_worker_at_once(fresh: Worker) -> None:
    process = process_of(fresh)
    busy = fresh.call("work")
    fresh.strike(signal.SIGKILL)
    assert becomes(process, psutil.STATUS_ZOMBIE)
    assert isinstance(came_of(busy), WorkerLost)


def test_a_strike_stops_a_busy_worker_which_is_ended_at_once_all_the_same(fresh: Worker) -> None:
    process = process_of(fresh)
    busy = fresh.call("work")
    fresh.strike(signal.SIGSTOP)
    assert becomes(process, psutil.STATUS_STOPPED)
    started = time.monotonic()
    fresh.kill()
    assert becomes(process, psutil.STATUS_ZOMBIE, within_s=1.0)
    assert time.monotonic() - started < 1.0
    assert isinstance(came_of(busy), WorkerLost)
