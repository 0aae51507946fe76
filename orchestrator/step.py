"""One training step, from prompts to published weights."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from operator import mul
from typing import Protocol

from actors.config import LearnerConfig
from actors.messages import GradientReport, LearnerShard, StepDecision, TokenRecord, UpdateReport
from orchestrator.ahead import BatchesAhead
from orchestrator.batching import shard_batch
from orchestrator.clock import PhaseClock
from orchestrator.evaluation import Evaluation
from orchestrator.records import StepRecord
from orchestrator.rollout_log import RolloutLog, in_order
from orchestrator.sampling import SampledBatch, Sampler


class Workers(Protocol):
    """What a step asks of rollout workers, learners and the scheduler; see `orchestrator.crew.crew`, which answers."""

    @property
    def version(self) -> int:
        """Of the weights that responses are sampled from."""

    def compute_gradients(self, shards: Sequence[LearnerShard]) -> list[GradientReport]:
        """A report from each rank on its shard."""

    def token_records(self) -> list[list[list[TokenRecord]]]:
        """What each rank kept of its shard's tokens, by micro-batch."""

    def decide(
        self, step: int, reports: Sequence[GradientReport], metrics: dict[str, float], num_prompts: int
    ) -> StepDecision:
        """The scheduler's decision."""

    def apply(self, order: StepDecision) -> list[UpdateReport]:
        """A report from each rank on the update it has made."""

    def publish(self) -> None:
        """Put the learners' weights in force at the rollout workers, as the next version."""


class StaleWeights(RuntimeError):
    """A rollout worker sampled with weights that are older than they may be, or of another run."""


class TrainingStep:
    """Drives the parts of one run through a step; it knows their order and nothing else."""

    def __init__(  # noqa: PLR0913 - one for each part
        self,
        *,
        sampler: Sampler,
        workers: Workers,
        num_learners: int,
        evaluation: Evaluation | None,
        rollout_log: RolloutLog | None,
        config: LearnerConfig,
        max_staleness: int = 0,
    ) -> None:
        self.sampler = sampler
        self.max_staleness = max_staleness
        self._batches = BatchesAhead(sampler)
        self._workers = workers
        self._num_learners = num_learners
        self._evaluation = evaluation
        self._rollout_log = rollout_log
        self._config = config

    def step(self, step: int, clock: PhaseClock, ahead: PhaseClock | None = None) -> StepRecord:
        """Data goes down to the workers and its statistics come back, once.

        Args:
            step: its number.
            clock: of this step.
            ahead: of the next one, if its batch is to be sampled from the weights of this one meanwhile.
        """
        batch = self._batches.take(step, clock)
        metrics = {**batch.metrics(), **self._staleness(batch), **self._evaluate(step, clock)}
        if ahead is not None:
            self._batches.begin(step + 1, ahead)
        reports = []
        if batch.kept:
            with clock.phase("gradients"):
                reports = self._compute_gradients(step, batch)
        if ahead is not None:
            with clock.phase("await_rollout"):
                self._batches.settle()
        with clock.phase("decide"):
            order = self._workers.decide(step, reports, metrics, len(batch.kept))
        updates = []
        if batch.kept:
            with clock.phase("apply"):
                updates = self._workers.apply(order)
        if order.update:
            with clock.phase("publish"):
                self._workers.publish()
        return _record(order, UpdateReport().merge(*updates), clock)

    def abandon(self) -> None:
        """Forget the batch that was sampled ahead, once nothing is being sampled."""
        self._batches.abandon()

    def _staleness(self, batch: SampledBatch) -> dict[str, float]:
        """How many updates the weights have seen since they gave each token.

        Raises:
            StaleWeights: more than may be.
        """
        version = self._workers.version
        responses = [response for group in batch.generated for response in group.responses]
        ages = [version - response.weight_version for response in responses]
        if not all(0 <= age <= self.max_staleness for age in ages):
            versions = sorted({response.weight_version for response in responses} - {version})
            raise StaleWeights(f"responses were sampled with weights {versions} at version {version}")
        if not self.max_staleness:
            return {}
        lengths = [len(response.token_ids) for response in responses]
        mean = sum(map(mul, ages, lengths)) / max(1, sum(lengths))
        return {"sampling/staleness_mean": mean, "sampling/staleness_max": float(max(ages))}

    def _compute_gradients(self, step: int, batch: SampledBatch) -> list[GradientReport]:
        config = self._config
        groups = enumerate(batch.kept)
        sequences = [sequence for place, group in groups for sequence in group.sequences(place, config.advantage)]
        log = self._rollout_log if self._rollout_log and self._rollout_log.due(step) else None
        shards = shard_batch(
            sequences,
            self._num_learners,
            config.tokens_per_microbatch,
            halves=config.gradient_noise.due(step),
            whole_groups=config.advantage == "optimal_token_baseline",
        )
        if log is not None:
            shards = [replace(shard, keep_tokens=True) for shard in shards]
        reports = self._workers.compute_gradients(shards)
        if log is not None:
            log.training(step, batch.kept, in_order(sequences, shards, self._workers.token_records()))
        return reports

    def _evaluate(self, step: int, clock: PhaseClock) -> dict[str, float]:
        if self._evaluation is None or not self._evaluation.due(step):
            return {}
        with clock.phase("evaluate"):
            keep = self._rollout_log.evaluated if self._rollout_log else None
            return self._evaluation.run(step, keep)


def _record(order: StepDecision, update: UpdateReport, clock: PhaseClock) -> StepRecord:
    seconds = clock.metrics()
    throughput = order.metrics["sampling/tokens"] / seconds["time/step"]
    ended_s = time.time()
    metrics = {**order.metrics, **seconds, "time/ended_s": ended_s, "throughput/tokens_per_s": throughput}
    if order.update:
        metrics["gradient/update_norm_ratio"] = update.norm_ratio
    finite = {key: value for key, value in metrics.items() if math.isfinite(value)}
    return StepRecord(
        step=order.decision.step, time_ms=int(1000 * ended_s), metrics=finite, events=order.decision.events
    )
