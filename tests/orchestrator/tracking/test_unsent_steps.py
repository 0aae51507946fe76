"""Each step reaches the store once, whatever fails, with a small fake that loses calls and answers."""

from collections.abc import Iterator, Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.records import StepRecord
from orchestrator.tracking.step_batches import METRICS_PER_CALL
from orchestrator.tracking.store import MlflowStore
from orchestrator.tracking.unsent_steps import ROWS_AT_ONCE, UnsentSteps

FATE = st.sampled_from(["fine", "lost", "answer lost"])


class FakeStore:
    """Keeps every point it is given; a call may fail before or after that. Some steps it refuses."""

    def __init__(self, fates: Sequence[str] = (), refuses: frozenset[int] = frozenset()) -> None:
        self.kept = list[int]()
        self.sizes = list[int]()
        self.fates = list(fates)
        self.refuses = refuses
        self.asked = 0

    def log_steps(self, run_id: str, records: Sequence[StepRecord]) -> None:
        assert run_id == "id"
        fate = self.fates.pop(0) if self.fates else "fine"
        if fate == "lost":
            raise ConnectionError
        if any(record.step in self.refuses for record in records):
            raise ValueError("refused")
        self.kept += [record.step for record in records]
        self.sizes.append(len(records))
        if fate == "answer lost":
            raise ConnectionError

    def steps(self, run_id: str) -> set[int]:
        self.asked += 1
        if self.fates and self.fates.pop(0) != "fine":
            raise ConnectionError
        return set(self.kept)

    @property
    def real(self) -> MlflowStore:
        return cast(MlflowStore, self)


def record(step: int, num_metrics: int = 100) -> StepRecord:
    return StepRecord(step=step, time_ms=step, metrics={str(i): 0.0 for i in range(num_metrics)}, events=())


def send_all(unsent: UnsentSteps, store: FakeStore) -> None:
    for _ in range(10_000):
        try:
            return unsent.send(store.real, "id")
        except ConnectionError:
            continue
        except ValueError:
            unsent.refuse()
    raise AssertionError("it never ends")


@given(st.lists(FATE, max_size=30), st.sets(st.integers(0, 39), max_size=5), st.integers(1, 40))
def test_each_step_is_kept_once_in_order_whatever_is_lost(fates: list[str], refused: set[int], num: int) -> None:
    store, unsent = FakeStore(fates, frozenset(refused)), UnsentSteps()
    for step in range(num):
        unsent.put(record(step))
    send_all(unsent, store)
    assert store.kept == [step for step in range(num) if step not in refused]
    assert unsent.num_sent == len(store.kept)
    assert unsent.missing() == num - len(store.kept)


@given(st.lists(FATE, max_size=30), st.sets(st.integers(0, 59)), st.lists(st.integers(0, 79), max_size=30))
def test_what_is_there_is_filled_up_and_not_doubled(fates: list[str], there: set[int], logged: list[int]) -> None:
    store, unsent = FakeStore(fates), UnsentSteps()
    store.kept = sorted(there)
    for step in logged:
        unsent.put(record(step))
    while True:
        try:
            unsent.fill(store.real, "id", map(record, range(60)))
            break
        except ConnectionError:
            continue
    send_all(unsent, store)
    assert sorted(store.kept) == sorted({*range(60), *logged, *there})
    assert unsent.num_sent == len({*range(60), *logged} - there)
    assert unsent.missing(map(record, range(60))) == 0


def test_calls_are_as_full_as_they_may_be_and_ask_only_after_a_failure() -> None:
    store, unsent = FakeStore(), UnsentSteps()
    for step in range(25):
        unsent.put(record(step))
    unsent.send(store.real, "id")
    assert store.sizes == [METRICS_PER_CALL // 100] * 2 + [5]
    assert store.asked == 1
    for step in range(25, 40):
        unsent.put(record(step))
    store.fates = ["answer lost"]
    send_all(unsent, store)
    assert store.kept == list(range(40))
    assert store.asked == 2


def test_of_several_steps_only_the_refused_one_is_given_up() -> None:
    store, unsent = FakeStore(refuses=frozenset({3})), UnsentSteps()
    for step in range(30):
        unsent.put(record(step))
    given_up = list[int | None]()
    for _ in range(2):
        with pytest.raises(ValueError, match="refused"):
            unsent.send(store.real, "id")
        assert unsent.is_sending
        given_up.append(unsent.refuse())
    unsent.send(store.real, "id")
    assert given_up == [None, 3]
    assert store.sizes == [1] * 9 + [10] * 2


def test_the_only_step_that_waits_is_the_one_to_call_for() -> None:
    unsent = UnsentSteps()
    assert [unsent.put(record(step)) for step in range(3)] == [True, False, False]
    unsent.send(FakeStore().real, "id")
    assert unsent.put(record(3))


def test_steps_of_a_run_that_was_refused_are_counted_and_not_kept() -> None:
    store, unsent = FakeStore(), UnsentSteps()
    for step in range(5):
        unsent.put(record(step))
    unsent.send(store.real, None)
    unsent.fill(store.real, None, map(record, range(3, 8)))
    assert (store.kept, store.asked) == ([], 0)
    assert unsent.missing() == 8
    assert not unsent.is_sending


def test_rows_recorded_earlier_are_read_a_part_at_a_time() -> None:
    store, unsent, read = FakeStore(), UnsentSteps(), list[int]()
    ahead = list[int]()

    def rows() -> Iterator[StepRecord]:
        for step in range(3 * ROWS_AT_ONCE):
            read.append(step)
            ahead.append(len(read) - len(store.kept))
            yield record(step, num_metrics=1)

    unsent.fill(store.real, "id", rows())
    assert store.kept == list(range(3 * ROWS_AT_ONCE))
    assert max(ahead) == ROWS_AT_ONCE
