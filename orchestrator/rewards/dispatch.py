"""One call of a reward pool: which process scores what, who is overdue, and when to stop waiting."""

import json
import pickle
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait

from orchestrator.rewards.frames import Frames, Lost
from orchestrator.rewards.nursery import Nursery
from orchestrator.rewards.scores import RewardItem, Score
from orchestrator.rewards.worker import READY

MOST_PARKED = 16
PATIENCE = 0.05  # share of the time limit after which a process is parked
START_TIMEOUT_S = 60.0
LARGEST_CHUNK = 64  # items a process is sent at once,
CHUNK_CHARACTERS = 1_000_000  # unless they are long


@dataclass(slots=True, kw_only=True)
class Worker:
    """A reward process as the driver sees it."""

    pid: int
    frames: Frames
    ready: bool = False
    items: deque[int] = field(default_factory=deque)  # sent and not yet scored; it works on the first
    since: float = field(default_factory=time.monotonic)  # when it began with that one, or was started


class BadStart(RuntimeError):
    """A process has nothing to score with; the message says why."""


class Dispatch:
    """Scores a batch: `Dispatch(items, workers, ...).run()`.

    Waits for whichever process answers first, for the next one that becomes overdue, or for the moment when nothing
    at all has happened for the time limit; so it never waits longer than that limit for anything.
    """

    def __init__(
        self, items: Sequence[RewardItem], workers: list[Worker], size: int, nursery: Nursery, time_limit_s: float
    ) -> None:
        """Prepare a call.

        Args:
            items: what is to be scored.
            workers: idle processes; changed in place, holds the idle processes afterwards.
            size: how many processes work side by side, the parked ones not counted.
            nursery: where processes come from.
            time_limit_s: for one item.
        """
        self._items = items
        self._scores: list[Score | None] = [None] * len(items)
        self._left = len(items)
        order = list(range(len(items)))
        # Neighbours are responses to one prompt and hang together: mixed, they do not fill all processes at once.
        random.Random(0).shuffle(order)
        self._queue = deque(order)
        self._workers = workers
        self._parked: list[Worker] = []
        self._size = size
        self._num_stillborn = 0
        self._nursery = nursery
        self._time_limit_s = time_limit_s
        self._progress = time.monotonic()

    def run(self) -> list[Score]:
        """All scores, in the order of the items.

        Raises:
            BadStart: a new process could not load what it scores with.
            NurseryLost: no process can be started.
        """
        while self._left:
            self._staff()
            self._feed()
            if len(self._workers) < self._size:
                continue  # some had died since the last call
            if not any(worker.items for worker in self._workers + self._parked):
                self._progress = time.monotonic()  # all are starting: loading a user's module takes what it takes
            self._listen()
            now = time.monotonic()
            if now - self._progress >= self._time_limit_s:
                self._give_up()
                break
            self._look_after(now)
        return [score for score in self._scores if score is not None]

    def start(self) -> None:
        """Have all processes ready; BadStart and NurseryLost as above."""
        while len(self._workers) < self._size or not all(worker.ready for worker in self._workers):
            self._staff()
            self._read_those_that_answer(timeout=0.1)
            self._look_after(time.monotonic())

    def _staff(self) -> None:
        while len(self._workers) < self._size:
            pid, frames = self._nursery.fork()
            self._workers.append(Worker(pid=pid, frames=frames))

    def _feed(self) -> None:
        for worker in list(self._workers):
            if not self._queue or not worker.ready or worker.items:
                continue
            if wait([worker.frames.fileno()], 0):  # an idle process says nothing: this one is dead
                self._dismiss(worker)
                continue
            chunk = self._chunk()
            try:
                worker.frames.send(pickle.dumps([(number, self._items[number]) for number in chunk]))
            except Lost:
                self._queue.extendleft(reversed(chunk))
                self._dismiss(worker)
                continue
            worker.items.extend(chunk)
            worker.since = time.monotonic()

    def _chunk(self) -> list[int]:
        size = max(1, min(LARGEST_CHUNK, len(self._queue) // (4 * self._size)))
        chunk: list[int] = []
        characters = 0
        while self._queue and len(chunk) < size and characters < CHUNK_CHARACTERS:
            chunk.append(self._queue.popleft())
            characters += len(self._items[chunk[-1]].response)
        return chunk

    def _listen(self) -> None:
        everyone = self._workers + self._parked
        deadlines = [self._progress + self._time_limit_s]
        for worker in everyone:
            if worker.items:
                may_park = worker not in self._parked and len(self._parked) < MOST_PARKED
                deadlines.append(worker.since + self._time_limit_s * (PATIENCE if may_park else 1.0))
        timeout = max(0.0, min(deadlines) - time.monotonic())
        self._read_those_that_answer(timeout)

    def _read_those_that_answer(self, timeout: float) -> None:
        everyone = {worker.frames.fileno(): worker for worker in self._workers + self._parked}
        for end in wait(list(everyone), timeout):
            if isinstance(end, int):
                self._read(everyone[end])

    def _read(self, worker: Worker) -> None:
        try:
            for frame in worker.frames.arrived():
                self._take(worker, frame)
        except (Lost, ValueError, IndexError, TypeError):
            if not worker.ready:
                self._stillborn(worker)
                return
            if worker in self._workers or worker in self._parked:
                number = worker.items.popleft() if worker.items else None
                reason = self._dismiss(worker)
                if number is not None:
                    self._settle(number, Score.failed(f"its process {reason}"))

    def _stillborn(self, worker: Worker) -> None:
        # Killed from outside, perhaps while it was waiting for its first call; but not so every time.
        slow = time.monotonic() - worker.since >= START_TIMEOUT_S
        reason = self._dismiss(worker)
        if slow:
            raise BadStart(f"loading it took longer than {START_TIMEOUT_S:g} s")
        self._num_stillborn += 1
        if self._num_stillborn > self._size + 1:
            raise BadStart(f"its process {reason}")

    def _take(self, worker: Worker, frame: bytes) -> None:
        now = time.monotonic()
        if not worker.ready:
            if frame != READY:
                raise BadStart(str(json.loads(frame)[0]))
            worker.ready = True
            return
        number, value, bonus, answer, error, spent = json.loads(frame)
        if number != worker.items.popleft():
            raise ValueError("a score of another item")
        worker.since = self._progress = now
        self._settle(number, Score(value=float(value), bonus=float(bonus), answer=answer, error=error))
        if spent or worker in self._parked:
            self._dismiss(worker)

    def _settle(self, number: int, score: Score) -> None:
        self._scores[number] = score
        self._left -= 1

    def _look_after(self, now: float) -> None:
        for worker in self._workers + self._parked:
            if not worker.ready and now - worker.since >= START_TIMEOUT_S:
                self._stillborn(worker)
            if not worker.items:
                continue
            if now - worker.since >= self._time_limit_s:
                self._settle(worker.items.popleft(), self._too_long())
                self._dismiss(worker)
            elif (
                now - worker.since >= self._time_limit_s * PATIENCE
                and worker in self._workers
                and len(self._parked) < MOST_PARKED
            ):
                self._park(worker)

    def _park(self, worker: Worker) -> None:
        """Let it go on with its slow item alone; what else it was sent goes to others."""
        while len(worker.items) > 1:
            self._queue.appendleft(worker.items.pop())
        self._workers.remove(worker)
        self._parked.append(worker)

    def _dismiss(self, worker: Worker) -> str:
        """End a process; what it was sent and has not scored goes back. Says how it had ended."""
        while worker.items:
            self._queue.appendleft(worker.items.pop())
        (self._workers if worker in self._workers else self._parked).remove(worker)
        worker.frames.close()
        return self._nursery.reap(worker.pid)

    def _give_up(self) -> None:
        for worker in [worker for worker in self._workers + self._parked if worker.items]:
            self._settle(worker.items.popleft(), self._too_long())
            self._dismiss(worker)
        for number in self._queue:
            self._settle(number, Score.failed(f"nothing could be scored for {self._time_limit_s:g} s"))
        self._queue.clear()

    def _too_long(self) -> Score:
        return Score.failed(f"took longer than {self._time_limit_s:g} s")
