"""Waiting for answers within bounds: of time, and of how long a worker may give no sign of life."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from cluster.worker import Call, Worker, WorkerLost, outcomes

PINGS_PER_SILENCE = 4
LONGEST_PAUSE_S = 5.0  # between two looks at who is alive
GATHERING_S = 0.01  # for answers that come shortly after another one


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long workers are waited for.

    Example:
        Patience(call_s=1800.0, silence_s=60.0)
    """

    call_s: float  # for a call to be answered
    silence_s: float  # for a sign of life while it is not

    @property
    def pause_s(self) -> float:
        """Between two looks at who is alive."""
        return min(LONGEST_PAUSE_S, self.silence_s / PINGS_PER_SILENCE)


class RollCall:
    """Who gives no sign of life. A worker that is busy does; one that is dead, stopped or cut off does not.

    roll = RollCall(workers, silence_s=60)
    while waiting:
        for lost in roll.look("generate"):
            ...
    """

    def __init__(self, workers: Sequence[Worker], silence_s: float) -> None:
        self._workers = list({worker.name: worker for worker in workers}.values())
        self._silence_s = silence_s
        self._asked: dict[str, tuple[Call, float]] = {}  # pings under way and when they were sent, by worker
        self._lost: set[str] = set()

    def look(self, method: str) -> list[WorkerLost]:
        """Those lost since the last look; asks everyone else for their next sign of life. Does not wait.

        A worker that has never been up may be silent; it is lost only when Ray says so.

        Raises:
            PlacementError: one that is not up yet has lost its place, and there is no other in good time.
        """
        lost = []
        answered = self._answered()
        for worker in self._workers:
            reason = None if worker.name in self._lost else self._why_lost(worker, answered)
            if reason is not None:
                self._lost.add(worker.name)
                lost.append(WorkerLost(worker.name, method, reason))
        return lost

    def complete(self, method: str) -> list[WorkerLost]:
        """All who are lost now; waits until everyone has answered or been silent for too long."""
        lost = self.look(method)
        open_refs = [call.ref for name, (call, _) in self._asked.items() if name not in self._lost]
        if open_refs:
            ray.wait(open_refs, num_returns=len(open_refs), timeout=self._silence_s)
        return lost + self.look(method)

    def _answered(self) -> set[Any]:
        """Which of the pings under way have come back, after those have been sent that are due."""
        due = [worker for worker in self._workers if worker.name not in self._asked and worker.name not in self._lost]
        up = _there([worker.first_sign.ref for worker in due])
        for worker in due:
            # Of one that is not up yet the first ping is awaited: no silence counts that began before it was up.
            call = worker.ping() if worker.first_sign.ref in up else worker.first_sign
            self._asked[worker.name] = (call, time.monotonic())
        return _there([call.ref for call, _ in self._asked.values()])

    def _why_lost(self, worker: Worker, answered: set[Any]) -> str | None:
        call, since = self._asked[worker.name]
        if call.ref in answered:
            del self._asked[worker.name]
            outcome = call.outcome()
            return outcome.reason if isinstance(outcome, WorkerLost) else None
        if call is worker.first_sign:
            worker.require_place()
        elif time.monotonic() - since > self._silence_s:
            return f"no sign of life for {self._silence_s:g} s"
        return None


def answers(calls: Sequence[Call], needed: Sequence[Worker], patience: Patience) -> Iterator[tuple[Call, Any]]:
    """Each call with what came of it (see `Call.outcome`), as it comes in.

    Args:
        calls: what to wait for; of one method.
        needed: workers that the open calls depend on, whether they are called themselves and have answered or not.
        patience: bounds of the waiting. Whoever is lost meanwhile has a WorkerLost come of its call.

    Raises:
        WorkerLost: one of `needed` is lost that has no call open.
        PlacementError: as `RollCall.look`.
    """
    open_calls = {call.ref: call for call in calls}
    method = calls[0].method if calls else ""
    names_needed = {worker.name for worker in needed}
    roll = RollCall([*(call.worker for call in calls), *needed], patience.silence_s)
    deadline = time.monotonic() + patience.call_s
    while open_calls:
        left = deadline - time.monotonic()
        ready = _ready(list(open_calls), max(0.0, min(patience.pause_s, left)))
        if ready:
            answered = [open_calls.pop(ref) for ref in ready]
            yield from zip(answered, outcomes(answered), strict=True)
        elif left <= 0:
            for call in open_calls.values():
                yield call, WorkerLost(call.worker.name, method, f"no answer in {patience.call_s:g} s")
            return
        else:
            for lost in roll.look(method):
                theirs = [call for call in open_calls.values() if call.worker.name == lost.worker]
                if not theirs and lost.worker in names_needed:
                    raise lost
                for call in theirs:
                    del open_calls[call.ref]
                    yield call, lost


def _there(refs: list[Any]) -> set[Any]:
    """Those that are there now."""
    return set(ray.wait(refs, num_returns=len(refs), timeout=0)[0]) if refs else set()


def _ready(refs: list[Any], timeout_s: float) -> list[Any]:
    """Those that are there once the first is; none if that takes longer than `timeout_s`.

    The others have a moment to come in with the first: to look at all that are open once for each that comes would take
    a time that grows with the square of their number.
    """
    first, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
    if not first or len(refs) == 1:
        return first
    ready, _ = ray.wait(refs, num_returns=len(refs), timeout=GATHERING_S)
    return ready
