"""A thread that does jobs with an MLflow store in order, each again and again until it is done or refused."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from orchestrator.tracking.jobs import Target
from orchestrator.tracking.refusals import is_refusal

if TYPE_CHECKING:
    from orchestrator.tracking.store import MlflowStore


class Job(Protocol):
    """Something to be done with the store; doing it twice must leave what doing it once does.

    job.do(store)  # fails: tried again later
    job.do(store)  # refused: if job.refuse(error) is True, there is more to do and it is tried again
    """

    @property
    def target(self) -> Target:
        """The run that it is done for."""
        ...

    def do(self, store: "MlflowStore") -> None:
        """Do it, or go on with it."""
        ...

    def refuse(self, error: Exception) -> bool:
        """Give up what has just been refused for good; True when the job has more to do."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long to wait before a job is tried again.

    Example:
        >>> [Waits(first_s=1.0, longest_s=30.0).after(tries) for tries in (1, 2, 3, 6)]
        [1.0, 2.0, 4.0, 30.0]
    """

    first_s: float
    longest_s: float

    def after(self, tries: int) -> float:
        """Seconds to wait after that many tries in a row, 1 or more."""
        return min(self.first_s * 2.0 ** min(tries - 1, 60), self.longest_s)


class Courier:
    """One background thread; whoever hands in a job never waits for it."""

    def __init__(
        self,
        connect: "Callable[[], MlflowStore]",
        waits: Waits,
        went_away: Callable[[Exception], None],
        came_back: Callable[[], None],
    ) -> None:
        """Start the thread.

        Args:
            connect: makes the store, in the thread; tried again like a job.
            waits: between two tries.
            went_away: told once when jobs begin to fail.
            came_back: told once when all that waited is done.
        """
        self._connect = connect
        self._waits = waits
        self._went_away = went_away
        self._came_back = came_back
        self._store: MlflowStore | None = None
        self._away = False
        self._jobs: deque[Job] = deque()  # the first is the one at work
        self._changed = threading.Condition()
        self._closing = False
        self._given_up = False
        self._thread = threading.Thread(target=self._work, name="evenkeel-tracking", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Do `job` some time soon, after all earlier jobs."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Wait for what is outstanding, so long at most; then the rest is given up. An interrupt ends it at once."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        try:
            self._thread.join(timeout_s)
        finally:
            with self._changed:
                self._given_up = True
                self._changed.notify_all()

    def outstanding(self) -> list[Job]:
        """The jobs that are not done."""
        with self._changed:
            return list(self._jobs)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._finish(job)
            if self._given_up:
                return
            with self._changed:
                self._jobs.popleft()

    def _next(self) -> Job | None:
        if self._away and not self._jobs:
            self._away = False
            self._came_back()
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closing)
            return self._jobs[0] if self._jobs else None

    def _finish(self, job: Job) -> None:
        tries = 0
        while not self._given_up:
            try:
                job.do(self._connected())
                return
            except Exception as error:
                tries += 1
                if self._given_up:
                    return
                if not is_refusal(error, tries):
                    self._wait(error, tries)
                elif job.refuse(error):
                    tries = 0
                else:
                    return

    def _connected(self) -> "MlflowStore":
        if self._store is None:
            self._store = self._connect()
        return self._store

    def _wait(self, error: Exception, tries: int) -> None:
        if not self._away:
            self._away = True
            self._went_away(error)
        with self._changed:
            closing = self._closing
            seconds = self._waits.first_s if closing else self._waits.after(tries)
            self._changed.wait_for(lambda: self._given_up or self._closing != closing, seconds)
