"""The steps of one run that MLflow does not have yet."""

import threading
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from orchestrator.records import StepRecord
from orchestrator.tracking.step_batches import step_batches

if TYPE_CHECKING:
    from orchestrator.tracking.store import MlflowStore

ROWS_AT_ONCE = 500  # of the steps recorded earlier


class UnsentSteps:
    """Steps on their way to MLflow: each gets there once, whatever is tried twice.

    unsent.put(record)           # by the thread that trains
    unsent.send(store, run_id)   # by the thread that sends; again if it fails
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[StepRecord] = deque()
        self._earlier: deque[StepRecord] = deque()  # a part of those recorded earlier
        self._source = self._waiting  # the one of the two that is being sent from
        self._sending: list[StepRecord] = []  # its first steps, as many as one call holds
        self._one_by_one = 0  # so many are sent in a call of their own, because one among them was refused
        self._tried = set[int]()  # of those being sent: the ones that were handed over, whether or not they arrived
        self._known = set[int]()  # what MLflow has
        self._asked = False  # whether the above is all that it has; not so after a call of unknown outcome
        self._refused = set[int]()
        self.num_sent = 0

    def put(self, record: StepRecord) -> bool:
        """Add a step; True when it is the only one that waits."""
        with self._lock:
            self._waiting.append(record)
            return len(self._waiting) == 1

    def send(self, store: "MlflowStore", run_id: str | None) -> None:
        """Send all that wait, those added meanwhile too; what MLflow has already is passed over.

        Args:
            store: its errors come through; what it did take before is not sent again.
            run_id: None when MLflow has refused to make the run; then it refuses its steps too.
        """
        self._send(self._waiting, store, run_id)

    def fill(self, store: "MlflowStore", run_id: str | None, rows: Iterable[StepRecord]) -> None:
        """Send those of `rows` that MLflow lacks, a part at a time: they are never all in memory."""
        self._send(self._earlier, store, run_id)
        if run_id is not None:
            self._ask(store, run_id)
        lacking = (row for row in rows if row.step not in self._known and row.step not in self._refused)
        while part := list(islice(lacking, ROWS_AT_ONCE)):
            with self._lock:
                self._earlier.extend(part)
            self._send(self._earlier, store, run_id)

    def _send(self, source: deque[StepRecord], store: "MlflowStore", run_id: str | None) -> None:
        self._source = source
        while self._take():
            if run_id is None:
                self._settle(refused=True)
                continue
            self._ask(store, run_id)
            new: dict[int, StepRecord] = {}
            for record in self._sending:
                if record.step not in self._known:
                    new.setdefault(record.step, record)
            self._tried |= new.keys()
            try:
                store.log_steps(run_id, list(new.values()))
            except Exception:
                self._asked = False  # it may have arrived all the same
                raise
            self._settle()

    @property
    def is_sending(self) -> bool:
        """Whether `send` or `fill` was at a step when it ended, that is, failed."""
        return bool(self._sending)

    def refuse(self) -> int | None:
        """Give up what was refused for good; of several steps none yet, they are tried one by one.

        Returns:
            The step that was given up, if one was.
        """
        if len(self._sending) > 1:
            self._one_by_one = len(self._sending)
            return None
        step = self._sending[0].step
        self._settle(refused=True)
        return step

    def give_up(self) -> None:
        """Count all that wait as refused."""
        self._source = self._waiting
        while self._take():
            self._settle(refused=True)

    def missing(self, rows: Iterable[StepRecord] = ()) -> int:
        """How many of the steps added, and of `rows`, MLflow is not known to have."""
        with self._lock:
            steps = {record.step for record in (*self._waiting, *self._earlier)} | self._refused
            known = set(self._known)
        return len((steps | {row.step for row in rows}) - known)

    def _take(self) -> list[StepRecord]:
        with self._lock:
            self._sending = next(step_batches(islice(self._source, 1 if self._one_by_one else None)), [])
            return self._sending

    def _ask(self, store: "MlflowStore", run_id: str) -> None:
        if not self._asked:
            known = store.steps(run_id)
            with self._lock:
                self._known |= known
            self._asked = True

    def _settle(self, refused: bool = False) -> None:
        """Be done with what is being sent."""
        with self._lock:
            for record in self._sending:
                self._source.popleft()
                (self._refused if refused else self._known).add(record.step)
            self.num_sent += len(self._tried & self._known)
            self._tried -= self._known | self._refused
            self._one_by_one = max(self._one_by_one - len(self._sending), 0)
            self._sending = []
