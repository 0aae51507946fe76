"""One training step, from prompts to published weights, and the loop over steps."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

from actors.config import LearnerConfig
from actors.learner import Learner
from actors.messages import GradientReport, StepDecision, UpdateReport
from actors.scheduler import Scheduler
from cluster.pool import Pool
from orchestrator.batching import shard_batch
from orchestrator.clock import PhaseClock
from orchestrator.evaluation import Evaluation
from orchestrator.records import StepRecord
from orchestrator.rollout_log import RolloutLog, in_order
from orchestrator.sampling import SampledBatch, Sampler

Record = Callable[[StepRecord], bool]  # False ends the run


class StaleWeights(RuntimeError):
    """A rollout worker sampled with weights of another step."""


class TrainingLoop:
    """Drives the parts of one run; it knows their order and nothing else."""

    def __init__(  # noqa: PLR0913 - one for each part
        self,
        *,
        sampler: Sampler,
        learners: Pool[Learner],
        scheduler: Pool[Scheduler],
        evaluation: Evaluation | None,
        rollout_log: RolloutLog | None,
        config: LearnerConfig,
    ) -> None:
        self._sampler = sampler
        self._learners = learners
        self._scheduler = scheduler
        self._evaluation = evaluation
        self._rollout_log = rollout_log
        self._config = config
        self._version = 0

    def run(self, first: int, last: int, record: Record) -> None:
        """Steps `first` to `last`, each recorded as soon as it is done, unless `record` ends the run earlier."""
        recording_s = 0.0
        for step in range(first, last + 1):
            clock = PhaseClock()
            done = self.step(step, clock)
            # A record cannot contain how long it takes to write itself: it tells of the one before.
            done.metrics["time/record"] = recording_s
            started = time.perf_counter()
            if not record(done):
                return
            recording_s = time.perf_counter() - started

    def step(self, step: int, clock: PhaseClock) -> StepRecord:
        """One on-policy step. Data goes down to the workers and its statistics come back, once."""
        batch = self._sampler.next_batch(step, clock)
        _require_on_policy(batch, self._version)
        metrics = {**batch.metrics(), **self._evaluate(step, clock)}
        reports = []
        if batch.kept:
            with clock.phase("gradients"):
                reports = self._compute_gradients(step, batch)
        with clock.phase("decide"):
            order = self._scheduler.first(Scheduler.decide, step, reports, metrics, len(batch.kept))
        updates = []
        if batch.kept:
            with clock.phase("apply"):
                updates = self._learners.broadcast(Learner.apply, order)
        if order.update:
            with clock.phase("publish"):
                self._publish()
        return _record(order, UpdateReport().merge(*updates), clock)

    def _compute_gradients(self, step: int, batch: SampledBatch) -> list[GradientReport]:
        config = self._config
        groups = enumerate(batch.kept)
        sequences = [sequence for place, group in groups for sequence in group.sequences(place, config.advantage)]
        log = self._rollout_log if self._rollout_log and self._rollout_log.due(step) else None
        shards = shard_batch(
            sequences,
            len(self._learners),
            config.tokens_per_microbatch,
            halves=config.gradient_noise.due(step),
            whole_groups=config.advantage == "optimal_token_baseline",
        )
        if log is not None:
            shards = [replace(shard, keep_tokens=True) for shard in shards]
        reports = self._learners.scatter(Learner.compute_gradients, shards)
        if log is not None:
            records = self._learners.broadcast(Learner.token_records)
            log.training(step, batch.kept, in_order(sequences, shards, records))
        return reports

    def _evaluate(self, step: int, clock: PhaseClock) -> dict[str, float]:
        if self._evaluation is None or not self._evaluation.due(step):
            return {}
        with clock.phase("evaluate"):
            keep = self._rollout_log.evaluated if self._rollout_log else None
            return self._evaluation.run(step, keep)

    def _publish(self) -> None:
        self._version += 1
        self._learners.broadcast(Learner.publish, self._version)


def _require_on_policy(batch: SampledBatch, version: int) -> None:
    """Every response must come from the weights that are about to be trained."""
    stale = {response.weight_version for group in batch.generated for response in group.responses} - {version}
    if stale:
        raise StaleWeights(f"responses were sampled with weights {sorted(stale)} at version {version}")


def _record(order: StepDecision, update: UpdateReport, clock: PhaseClock) -> StepRecord:
    seconds = clock.metrics()
    throughput = order.metrics["sampling/tokens"] / seconds["time/step"]
    metrics = {**order.metrics, **seconds, "throughput/tokens_per_s": throughput}
    if order.update:
        metrics["gradient/update_norm_ratio"] = update.norm_ratio
    now_ms = int(time.time() * 1000)
    finite = {key: value for key, value in metrics.items() if math.isfinite(value)}
    return StepRecord(step=order.decision.step, time_ms=now_ms, metrics=finite, events=order.decision.events)
