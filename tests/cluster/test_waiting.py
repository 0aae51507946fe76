"""Waiting for workers on a real private Ray: who is busy, who is lost, and how long that takes to tell."""

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from signal import SIGKILL, SIGSTOP, Signals
from typing import Any

import psutil
import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from cluster.placement import PlacementError, Slot
from cluster.plan import Seat
from cluster.waiting import Patience, RollCall, answers
from cluster.worker import Worker, WorkerLost

SILENCE_S = 2.0
SLACK_S = 5.0  # a busy machine is slow
PATIENT = Patience(call_s=60.0, silence_s=SILENCE_S)
BUSY, IDLE, KILLED, STOPPED, FRESH = range(5)  # places

pytestmark = pytest.mark.slow


class Clerk:
    def __init__(self, slow_start_s: float = 0.0) -> None:
        time.sleep(slow_start_s)
        self._released = threading.Event()

    def work(self, seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    def work_alone(self, times: int) -> str:
        """Lets no other thread run for a second each time."""
        for _ in range(times):
            ctypes.PyDLL(None).usleep(1_000_000)
            time.sleep(0.5)
        return "done"

    def work_until_released(self) -> str:
        self._released.wait()
        self._released.clear()
        return "released"

    def release(self) -> None:
        self._released.set()

    def refuse(self) -> None:
        raise ValueError("not today")


Start = Callable[..., Worker]


@pytest.fixture(scope="module")
def slots(places: Any) -> Iterator[list[Slot]]:
    with places("clerk", 5) as slots:
        yield slots


@pytest.fixture(scope="module")
def start(slots: list[Slot]) -> Iterator[Start]:
    """Starts a worker that is never called before a test does so."""
    started: list[Worker] = []

    def start_in(place: int, slow_start_s: float = 0.0) -> Worker:
        started.append(Worker(Clerk, slots[place], f"clerk-{place}", (slow_start_s,), {}))
        return started[-1]

    yield start_in
    for worker in started:
        worker.kill()


@pytest.fixture(scope="module")
def idle(start: Start) -> Worker:
    return up(start(IDLE))


@pytest.fixture(scope="module")
def standing(start: Start) -> Worker:
    return up(start(BUSY))


@pytest.fixture
def busy(standing: Worker) -> Iterator[Worker]:
    """A worker for work of any length: the test's end is the work's."""
    yield standing
    ray.get(standing.call_aside("release").ref)
    ray.get([standing.call("release").ref, standing.call("work_until_released").ref])


@pytest.fixture(scope="module")
def killed(start: Start) -> Worker:
    return struck(up(start(KILLED)), SIGKILL)


@pytest.fixture(scope="module")
def stopped(start: Start) -> Worker:
    return struck(up(start(STOPPED)), SIGSTOP)


@pytest.fixture
def fresh(start: Start) -> Iterator[Start]:
    """Starts a worker that is gone after the test; it need not be up."""
    started: list[Worker] = []

    def start_one(slow_start_s: float = 0.0) -> Worker:
        started.append(start(FRESH, slow_start_s))
        return started[-1]

    yield start_one
    for worker in started:
        worker.kill()


def up(worker: Worker) -> Worker:
    """Returns when it is."""
    give_up = time.monotonic() + 60
    while not worker.has_been_up:
        assert time.monotonic() < give_up
        time.sleep(0.02)
    return worker


def struck(worker: Worker, signum: Signals) -> Worker:
    """Returns when the signal has done its work."""
    process = worker._process_here()
    assert process is not None
    worker.strike(signum)
    give_up = time.monotonic() + SLACK_S
    while process.is_running() and process.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}:
        assert time.monotonic() < give_up
        time.sleep(0.02)
    return worker


def told(outcome: Any) -> tuple[str, str]:
    assert isinstance(outcome, WorkerLost)
    return outcome.worker, outcome.reason


@pytest.mark.parametrize(("silence_s", "pause_s"), [(2.0, 0.5), (20.0, 5.0), (600.0, 5.0)])
def test_signs_of_life_are_asked_for_several_times_within_the_silence_that_is_allowed(
    silence_s: float, pause_s: float
) -> None:
    assert Patience(call_s=1.0, silence_s=silence_s).pause_s == pause_s


def test_nothing_to_wait_for_is_over_at_once() -> None:
    assert list(answers([], [], PATIENT)) == []


def test_answers_come_as_they_are_given(busy: Worker, idle: Worker) -> None:
    calls = [busy.call("work_until_released"), idle.call("work", 0.0), idle.call("refuse")]
    coming = answers(calls, [], PATIENT)
    early = dict([next(coming), next(coming)])
    assert early[calls[1]] == "done"
    assert isinstance(early[calls[2]], ValueError)
    busy.call_aside("release")
    assert list(coming) == [(calls[0], "released")]


def test_a_busy_worker_is_not_lost_however_long_it_works(busy: Worker, idle: Worker) -> None:
    calls = [busy.call("work", 1.5 * SILENCE_S), idle.call("work_alone", 2)]
    assert [outcome for _, outcome in answers(calls, [], PATIENT)] == ["done", "done"]


def test_a_worker_that_was_never_up_may_be_silent_for_longer(fresh: Start) -> None:
    late = fresh(slow_start_s=2.5)
    started = time.monotonic()
    assert RollCall([late], silence_s=0.5).complete("roll call") == []
    assert time.monotonic() - started < 0.5 + SLACK_S
    assert not late.has_been_up
    [(_, outcome)] = answers([late.call("work", 0.0)], [], Patience(call_s=60.0, silence_s=1.0))
    assert outcome == "done"


def test_a_worker_is_not_lost_in_the_moment_in_which_it_comes_up(fresh: Start) -> None:
    late = fresh(slow_start_s=1.0)
    roll = RollCall([late], silence_s=0.5)
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        assert roll.look("work") == []
        if late.has_been_up:
            give_up = min(give_up, time.monotonic() + 0.05)


def test_a_worker_that_is_stopped_before_it_was_ever_called_is_lost_for_its_silence(stopped: Worker) -> None:
    started = time.monotonic()
    [(_, outcome)] = answers([stopped.call("work", 0.0)], [], PATIENT)
    assert SILENCE_S <= time.monotonic() - started < SILENCE_S + SLACK_S
    assert told(outcome) == ("clerk-3", "no sign of life for 2 s")


def test_a_stopped_worker_is_found_while_the_others_are_busy_whose_answers_come_yet(
    busy: Worker, stopped: Worker
) -> None:
    calls = [busy.call("work_until_released"), stopped.call("work", 0.0)]
    started = time.monotonic()
    outcomes = answers(calls, [], PATIENT)
    call, first = next(outcomes)
    assert time.monotonic() - started < SILENCE_S + SLACK_S
    assert told(first) == ("clerk-3", "no sign of life for 2 s")
    assert first.method == "work_until_released"
    assert call is calls[1]
    busy.call_aside("release")
    assert list(outcomes) == [(calls[0], "released")]


def test_a_killed_worker_is_told_of_once_and_the_answers_of_the_others_come_yet(idle: Worker, killed: Worker) -> None:
    calls = [killed.call("work", 0.0), idle.call("work", 0.75 * SILENCE_S)]  # for some looks
    [(_, first), (_, second)] = answers(calls, [], PATIENT)
    assert told(first)[0] == "clerk-2"
    assert second == "done"


def test_a_worker_that_is_lost_after_its_answer_does_no_harm_where_the_others_do_not_need_it(
    idle: Worker, fresh: Start
) -> None:
    early = up(fresh())
    outcomes = answers([early.call("work", 0.0), idle.call("work", 0.75 * SILENCE_S)], [], PATIENT)
    assert next(outcomes)[1] == "done"
    struck(early, SIGKILL)
    assert next(outcomes)[1] == "done"


@pytest.mark.parametrize("lost", ["killed", "stopped"])
def test_the_loss_of_a_needed_worker_ends_the_waiting(busy: Worker, lost: str, request: pytest.FixtureRequest) -> None:
    needed: Worker = request.getfixturevalue(lost)
    started = time.monotonic()
    with pytest.raises(WorkerLost, match=f"{needed.name} was lost in work_until_released: "):
        list(answers([busy.call("work_until_released")], [needed], PATIENT))
    assert time.monotonic() - started < SILENCE_S + SLACK_S


def test_a_worker_that_takes_longer_than_a_call_may_is_lost(busy: Worker, idle: Worker) -> None:
    calls = [idle.call("work", 0.0), busy.call("work_until_released")]
    [(_, first), (_, second)] = answers(calls, [], Patience(call_s=1.0, silence_s=SILENCE_S))
    assert first == "done"
    assert told(second) == ("clerk-0", "no answer in 1 s")


def test_a_roll_call_of_those_who_live_is_quick_also_when_they_are_busy(busy: Worker, idle: Worker) -> None:
    busy.call("work_until_released")
    started = time.monotonic()
    assert RollCall([busy, idle], silence_s=30.0).complete("roll call") == []
    assert time.monotonic() - started < SLACK_S


def test_a_roll_call_names_the_dead_and_the_stopped_within_the_silence_that_is_allowed(
    idle: Worker, killed: Worker, stopped: Worker
) -> None:
    started = time.monotonic()
    lost = RollCall([killed, idle, stopped], SILENCE_S).complete("roll call")
    assert time.monotonic() - started < SILENCE_S + SLACK_S
    assert {one.worker for one in lost} == {"clerk-2", "clerk-3"}
    assert {one.method for one in lost} == {"roll call"}


def test_looking_never_waits_and_tells_of_each_loss_once(killed: Worker, stopped: Worker) -> None:
    roll = RollCall([stopped, killed], silence_s=0.5)
    found: list[str] = []
    for _ in range(10):
        before = time.monotonic()
        found += [one.worker for one in roll.look("work")]
        assert time.monotonic() - before < 0.5
        time.sleep(0.1)
    assert sorted(found) == ["clerk-2", "clerk-3"]


def test_a_worker_whose_place_is_gone_is_not_awaited_for_longer_than_its_slot_allows(on_ray: None) -> None:
    group = placement_group([{"CPU": 1000.0}])  # as one of a lost node is that finds no room
    slot = Slot(group=group, index=0, seat=Seat(role="clerk", cpus=1000.0, gpus=0.0), timeout_s=1.0)
    homeless = Worker(Clerk, slot, "clerk-0", (), {})
    started = time.monotonic()
    try:
        with pytest.raises(PlacementError, match=r"within 1 s no other had room.*needs clerk \(1000 CPU\); free now: "):
            list(answers([homeless.call("work", 0.0)], [], PATIENT))
    finally:
        remove_placement_group(group)
    assert time.monotonic() - started < 1.0 + 2 * PATIENT.pause_s + SLACK_S
