"""One training step, from prompts to published weights, and the loop over steps."""

import math
import time
from collections.abc import Callable

from actors.learner import Learner
from actors.messages import StepDecision
from actors.scheduler import Scheduler
from cluster.pool import Pool
from orchestrator.advantages import AdvantageKind
from orchestrator.batching import shard_batch
from orchestrator.clock import PhaseClock
from orchestrator.records import StepRecord
from orchestrator.sampling import SampledBatch, Sampler

Record = Callable[[StepRecord], None]


class StaleWeights(RuntimeError):
    """A rollout worker sampled with weights of another step."""


class TrainingLoop:
    """Drives the parts of one run; it knows their order and nothing else."""

    def __init__(
        self,
        *,
        sampler: Sampler,
        learners: Pool[Learner],
        scheduler: Pool[Scheduler],
        advantage: AdvantageKind,
        tokens_per_microbatch: int,
    ) -> None:
        self._sampler = sampler
        self._learners = learners
        self._scheduler = scheduler
        self._advantage = advantage
        self._tokens_per_microbatch = tokens_per_microbatch
        self._version = 0

    def run(self, first: int, last: int, record: Record) -> None:
        """Steps `first` to `last`, each recorded as soon as it is done."""
        recording_s = 0.0
        for step in range(first, last + 1):
            clock = PhaseClock()
            done = self.step(step, clock)
            # A record cannot contain how long it takes to write itself: it tells of the one before.
            done.metrics["time/record"] = recording_s
            started = time.perf_counter()
            record(done)
            recording_s = time.perf_counter() - started

    def step(self, step: int, clock: PhaseClock) -> StepRecord:
        """One on-policy step. Data goes down to the workers and its statistics come back, once."""
        batch = self._sampler.next_batch(step, clock)
        _require_on_policy(batch, self._version)
        reports = []
        if batch.kept:
            sequences = [sequence for group in batch.kept for sequence in group.sequences(self._advantage)]
            with clock.phase("gradients"):
                shards = shard_batch(sequences, len(self._learners), self._tokens_per_microbatch)
                reports = self._learners.scatter(Learner.compute_gradients, shards)
        with clock.phase("decide"):
            order = self._scheduler.first(Scheduler.decide, step, reports, batch.metrics())
        if batch.kept:
            with clock.phase("apply"):
                self._learners.broadcast(Learner.apply, order)
        if order.update:
            with clock.phase("publish"):
                self._publish()
        return _record(batch, order, clock)

    def _publish(self) -> None:
        self._version += 1
        self._learners.broadcast(Learner.publish, self._version)


def _require_on_policy(batch: SampledBatch, version: int) -> None:
    """Every response must come from the weights that are about to be trained."""
    stale = {response.weight_version for group in batch.generated for response in group.responses} - {version}
    if stale:
        raise StaleWeights(f"responses were sampled with weights {sorted(stale)} at version {version}")


def _record(batch: SampledBatch, order: StepDecision, clock: PhaseClock) -> StepRecord:
    seconds = clock.metrics()
    throughput = order.metrics["sampling/tokens"] / seconds["time/step"]
    metrics = {
        **order.metrics,
        "sampling/empty_steps": float(not batch.kept),
        **seconds,
        "throughput/tokens_per_s": throughput,
    }
    now_ms = int(time.time() * 1000)
    finite = {key: value for key, value in metrics.items() if math.isfinite(value)}
    return StepRecord(step=order.decision.step, time_ms=now_ms, metrics=finite, events=order.decision.events)
