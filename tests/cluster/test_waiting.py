"""Waiting for workers on a real private Ray: who is busy, who is lost, and how long that takes to tell."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from cluster.placement import Bundle, Slot, reserved
from cluster.waiting import Patience, RollCall, answers
from cluster.worker import Worker, WorkerLost

BUNDLE = Bundle(role="clerk", cpus=0.1, gpus=0.0)
SILENCE_S = 2.0
SLACK_S = 5.0  # a busy machine is slow
PATIENT = Patience(call_s=60.0, silence_s=SILENCE_S)

pytestmark = pytest.mark.slow


class Clerk:
    def __init__(self, slow_start_s: float = 0.0) -> None:
        time.sleep(slow_start_s)

    def pid(self) -> int:
        return os.getpid()

    def work(self, seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    def work_alone(self, times: int) -> str:
        """Lets no other thread run for a second each time."""
        for _ in range(times):
            ctypes.PyDLL(None).usleep(1_000_000)
            time.sleep(0.5)
        return "done"

    def refuse(self) -> None:
        raise ValueError("not today")


Hire = Callable[..., Worker]


@pytest.fixture(scope="module")
def slots(on_ray: None) -> Iterator[list[Slot]]:
    with reserved([BUNDLE] * 3, timeout_s=30) as slots:
        yield slots


@pytest.fixture
def hire(slots: list[Slot]) -> Iterator[Hire]:
    """Starts workers in the reserved places, clerk-0 first; they are up unless they start slowly."""
    hired: list[Worker] = []

    def start(slow_start_s: float = 0.0) -> Worker:
        worker = Worker(Clerk, slots[len(hired)], f"clerk-{len(hired)}", (slow_start_s,), {})
        hired.append(worker)
        if not slow_start_s:
            pid_of(worker)
        return worker

    yield start
    for worker in hired:
        worker.kill()


def pid_of(worker: Worker) -> int:
    [(_, pid)] = answers([worker.call("pid")], [], PATIENT)
    assert isinstance(pid, int)
    return pid


def kill(worker: Worker) -> None:
    """Returns when it is gone."""
    process = psutil.Process(pid_of(worker))
    process.kill()
    give_up = time.monotonic() + 10
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < give_up:
        time.sleep(0.05)


def stop(worker: Worker) -> None:
    os.kill(pid_of(worker), signal.SIGSTOP)


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


def test_answers_come_as_they_are_given(hire: Hire) -> None:
    calls = [hire().call("work", 1.5), hire().call("work", 0.0), hire().call("refuse")]
    came = [(call.worker.name, outcome) for call, outcome in answers(calls, [], PATIENT)]
    outcomes = dict(came)
    assert list(outcomes)[-1] == "clerk-0"
    assert (outcomes["clerk-0"], outcomes["clerk-1"]) == ("done", "done")
    assert isinstance(outcomes["clerk-2"], ValueError)


def test_a_busy_worker_is_not_lost_however_long_it_works(hire: Hire) -> None:
    calls = [hire().call("work", 2.5 * SILENCE_S), hire().call("work_alone", 4)]
    assert [outcome for _, outcome in answers(calls, [], PATIENT)] == ["done", "done"]


def test_a_worker_that_was_never_up_may_be_silent_for_longer(hire: Hire) -> None:
    [(_, outcome)] = answers([hire(slow_start_s=2.5 * SILENCE_S).call("work", 0.0)], [], PATIENT)
    assert outcome == "done"


def test_a_stopped_worker_is_found_while_the_others_are_busy_whose_answers_come_yet(hire: Hire) -> None:
    workers = [hire(), hire(), hire()]
    stop(workers[1])
    started = time.monotonic()
    outcomes = answers([worker.call("work", 2.5 * SILENCE_S) for worker in workers], [], PATIENT)
    call, first = next(outcomes)
    assert time.monotonic() - started < SILENCE_S + SLACK_S
    assert told(first) == ("clerk-1", "no sign of life for 2 s")
    assert first.method == "work"
    assert call.worker is workers[1]
    assert {(call.worker.name, outcome) for call, outcome in outcomes} == {("clerk-0", "done"), ("clerk-2", "done")}


def test_a_killed_worker_is_told_of_once_and_the_answers_of_the_others_come_yet(hire: Hire) -> None:
    workers = [hire(), hire()]
    kill(workers[0])
    [(_, first), (_, second)] = answers([worker.call("work", 2 * SILENCE_S) for worker in workers], [], PATIENT)
    assert told(first)[0] == "clerk-0"
    assert second == "done"


def test_a_worker_that_is_lost_after_its_answer_does_no_harm_where_the_others_do_not_need_it(hire: Hire) -> None:
    early, late = hire(), hire()
    pid = pid_of(early)
    outcomes = answers([early.call("work", 0.0), late.call("work", 2 * SILENCE_S)], [], PATIENT)
    assert next(outcomes)[1] == "done"
    os.kill(pid, signal.SIGKILL)
    assert next(outcomes)[1] == "done"


@pytest.mark.parametrize("lose", [kill, stop])
def test_the_loss_of_a_needed_worker_ends_the_waiting(hire: Hire, lose: Callable[[Worker], None]) -> None:
    busy, needed = hire(), hire()
    lose(needed)
    started = time.monotonic()
    with pytest.raises(WorkerLost, match="clerk-1 was lost in work: "):
        list(answers([busy.call("work", 30.0)], [needed], PATIENT))
    assert time.monotonic() - started < SILENCE_S + SLACK_S


def test_a_worker_that_takes_longer_than_a_call_may_is_lost(hire: Hire) -> None:
    calls = [hire().call("work", 0.0), hire().call("work", 30.0)]
    [(_, first), (_, second)] = answers(calls, [], Patience(call_s=1.0, silence_s=SILENCE_S))
    assert first == "done"
    assert told(second) == ("clerk-1", "no answer in 1 s")


def test_a_roll_call_of_those_who_live_is_quick_also_when_they_are_busy(hire: Hire) -> None:
    workers = [hire(), hire()]
    workers[0].call("work", 30.0)
    started = time.monotonic()
    assert RollCall(workers, silence_s=30.0).complete("roll call") == []
    assert time.monotonic() - started < SLACK_S


def test_a_roll_call_names_the_dead_and_the_stopped_within_the_silence_that_is_allowed(hire: Hire) -> None:
    workers = [hire(), hire(), hire()]
    kill(workers[0])
    stop(workers[2])
    started = time.monotonic()
    lost = RollCall(workers, SILENCE_S).complete("roll call")
    assert time.monotonic() - started < SILENCE_S + SLACK_S
    assert {one.worker for one in lost} == {"clerk-0", "clerk-2"}
    assert {one.method for one in lost} == {"roll call"}


def test_a_roll_call_waits_for_a_worker_that_is_not_up_yet_but_does_not_call_it_lost(hire: Hire) -> None:
    started = time.monotonic()
    assert RollCall([hire(slow_start_s=30.0)], silence_s=1.0).complete("roll call") == []
    assert time.monotonic() - started < 1.0 + SLACK_S


def test_looking_never_waits_and_tells_of_each_loss_once(hire: Hire) -> None:
    workers = [hire(), hire()]
    stop(workers[0])
    kill(workers[1])
    roll = RollCall(workers, silence_s=1.0)
    found: list[str] = []
    started = time.monotonic()
    for _ in range(20):
        before = time.monotonic()
        found += [one.worker for one in roll.look("work")]
        assert time.monotonic() - before < 0.5
        time.sleep(0.1)
        if time.monotonic() - started > 1.0 + SLACK_S:
            break
    assert sorted(found) == ["clerk-0", "clerk-1"]
