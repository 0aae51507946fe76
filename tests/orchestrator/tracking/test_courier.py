"""Jobs are done in order by one thread, however often one fails, with a small fake in place of the store."""

import threading
import time
from collections.abc import Callable
from typing import cast

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from orchestrator.tracking.courier import Courier, Waits
from orchestrator.tracking.jobs import Target
from orchestrator.tracking.refusals import TRIES_IN_DOUBT, Refused
from orchestrator.tracking.store import MlflowStore

QUICK = Waits(first_s=0.001, longest_s=0.004)
STORE = cast(MlflowStore, object())


class Work:
    """A job that fails as it is told to; a refusal is given up so many times before there is no more to do."""

    def __init__(self, journal: list[object], number: int, *errors: Exception, parts: int = 1) -> None:
        self.target = Target(name=f"job {number}", tell_refused=lambda *_: None)
        self.journal = journal
        self.number = number
        self.errors = list(errors)
        self.parts = parts

    def do(self, store: MlflowStore) -> None:
        assert store is STORE
        if self.errors:
            raise self.errors.pop(0)
        self.journal.append(self.number)

    def refuse(self, error: Exception) -> bool:
        self.journal.append((self.number, str(error)))
        self.parts -= 1
        return self.parts > 0


def courier(journal: list[object], connect: Callable[[], MlflowStore] = lambda: STORE, waits: Waits = QUICK) -> Courier:
    return Courier(connect, waits, went_away=lambda _: journal.append("away"), came_back=lambda: journal.append("back"))


def test_jobs_are_done_in_order_in_another_thread() -> None:
    journal, threads = list[object](), set[int]()

    class Witness(Work):
        def do(self, store: MlflowStore) -> None:
            threads.add(threading.get_ident())
            super().do(store)

    line = courier(journal)
    for number in range(100):
        line.submit(Witness(journal, number))
    line.close(10)
    assert journal == list(range(100))
    assert len(threads - {threading.get_ident()}) == len(threads) == 1
    assert line.outstanding() == []


def test_a_job_that_fails_is_tried_until_it_is_done_and_the_outage_is_told_of_once() -> None:
    journal = list[object]()
    line = courier(journal)
    line.submit(Work(journal, 0, *[ConnectionError()] * 20))
    line.submit(Work(journal, 1, *[TimeoutError()] * 20))
    line.submit(Work(journal, 2))
    line.close(10)
    assert journal == ["away", 0, 1, 2, "back"]


def test_two_outages_are_told_of_twice() -> None:
    journal = list[object]()
    line = courier(journal)
    for number in range(2):
        line.submit(Work(journal, number, ConnectionError()))
        while journal.count("back") == number:
            time.sleep(0.001)
    line.close(10)
    assert journal == ["away", 0, "back", "away", 1, "back"]


def test_a_refusal_is_given_up_at_once_and_what_is_left_of_the_job_is_done() -> None:
    journal = list[object]()
    line = courier(journal)
    line.submit(Work(journal, 0, Refused("a")))
    line.submit(Work(journal, 1, Refused("b"), Refused("c"), parts=3))
    line.submit(Work(journal, 2))
    line.close(10)
    assert journal == [(0, "a"), (1, "b"), (1, "c"), 1, 2]


def test_a_doubtful_refusal_is_tried_a_few_times() -> None:
    journal = list[object]()
    line = courier(journal)
    doubt = MlflowException("lost a race", BAD_REQUEST)
    line.submit(Work(journal, 0, *[doubt] * (TRIES_IN_DOUBT - 1)))
    line.submit(Work(journal, 1, *[doubt] * TRIES_IN_DOUBT))
    line.close(10)
    assert journal == ["away", 0, (1, "lost a race"), "back"]


def test_connecting_is_tried_again_like_a_job_and_done_once() -> None:
    journal, tries = list[object](), list[int]()

    def connect() -> MlflowStore:
        tries.append(1)
        if len(tries) < 5:
            raise ConnectionError
        return STORE

    line = courier(journal, connect)
    for number in range(3):
        line.submit(Work(journal, number))
    line.close(10)
    assert (journal, len(tries)) == (["away", 0, 1, 2, "back"], 5)


def test_closing_ends_after_its_time_and_leaves_the_rest() -> None:
    journal = list[object]()
    line = courier(journal)
    jobs = [Work(journal, 0), Work(journal, 1, *[ConnectionError()] * 10**5), Work(journal, 2)]
    for job in jobs:
        line.submit(job)
    started = time.monotonic()
    line.close(0.2)
    assert 0.2 <= time.monotonic() - started < 2
    assert line.outstanding() == jobs[1:]
    time.sleep(0.05)
    left = len(jobs[1].errors)
    time.sleep(0.05)
    assert len(jobs[1].errors) == left, "it goes on trying"


def test_nothing_is_told_after_closing_gave_up() -> None:
    journal, answered = list[object](), threading.Event()

    class Slow(Work):
        def do(self, store: MlflowStore) -> None:
            answered.wait(5)
            super().do(store)

    line = courier(journal)
    line.submit(Slow(journal, 0, ConnectionError()))
    line.close(0.05)
    answered.set()
    line._thread.join(5)
    assert not line._thread.is_alive()
    assert journal == []


def test_closing_does_not_sit_out_a_long_wait() -> None:
    journal = list[object]()
    line = courier(journal, waits=Waits(first_s=0.01, longest_s=3600))
    line.submit(Work(journal, 0, *[ConnectionError()] * 8))  # 0.01 s, 0.02 s, ... 1.28 s
    time.sleep(0.4)
    started = time.monotonic()
    line.close(10)
    assert journal == ["away", 0, "back"]
    assert time.monotonic() - started < 0.6


@pytest.mark.parametrize("tries, seconds", [(1, 1.0), (2, 2.0), (5, 16.0), (6, 30.0), (10**6, 30.0)])
def test_waits_double_up_to_the_longest(tries: int, seconds: float) -> None:
    assert Waits(first_s=1.0, longest_s=30.0).after(tries) == seconds
