"""Batches in their order, the next of which may be sampled while one is learnt from."""

import threading
from typing import Protocol

from orchestrator.clock import PhaseClock
from orchestrator.sampling import SampledBatch


class Batches(Protocol):
    """Where they come from; see `orchestrator.sampling.Sampler`."""

    def next_batch(self, step: int, clock: PhaseClock) -> SampledBatch:
        """Sample the batch of a step."""


class BatchesAhead:
    """One batch at most is under way, in a thread of its own.

    batches = BatchesAhead(sampler)
    batch = batches.take(3, clock)      # sampled now, unless that was begun before
    batches.begin(4, PhaseClock())
    ...                                 # learn from the batch of step 3
    batches.settle()                    # that of step 4 is there: the weights it was sampled with may change
    """

    def __init__(self, batches: Batches) -> None:
        """Define it; nothing is sampled yet."""
        self._batches = batches
        self._under_way: _UnderWay | None = None

    def take(self, step: int, clock: PhaseClock) -> SampledBatch:
        """The batch of a step, and the seconds that it took on the clock; waits for it if it is under way."""
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            return self._batches.next_batch(step, clock)
        batch = under_way.result()
        clock.add(under_way.clock)
        return batch

    def begin(self, step: int, clock: PhaseClock) -> None:
        """Sample the batch of a step in the background."""
        self._under_way = _UnderWay(self._batches, step, clock)

    def settle(self) -> None:
        """Wait until nothing is being sampled; raises what went wrong meanwhile."""
        if self._under_way is not None:
            self._under_way.result()

    def abandon(self) -> None:
        """Wait likewise, and forget what was sampled."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.join()


class _UnderWay:
    def __init__(self, batches: Batches, step: int, clock: PhaseClock) -> None:
        self.clock = clock
        self._batches = batches
        self._step = step
        self._batch: SampledBatch | None = None
        self._error: BaseException | None = None
        # A daemon: a driver that is told to end does not wait for it.
        self._thread = threading.Thread(target=self._sample, name="evenkeel-ahead", daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        try:
            self._batch = self._batches.next_batch(self._step, self.clock)
        except BaseException as error:
            self._error = error

    def join(self) -> None:
        self._thread.join()

    def result(self) -> SampledBatch:
        self.join()
        if self._error is not None:
            raise self._error
        assert self._batch is not None
        return self._batch
