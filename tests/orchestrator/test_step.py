"""The order of a step and what follows from it, with every part a fake that writes into one journal."""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from actors.config import GradientNoiseConfig, LearnerConfig
from actors.lr_policies import LrDecision
from actors.messages import GradientReport, LearnerShard, Response, StepDecision, TokenRecord, UpdateReport
from cluster.worker import WorkerLost
from orchestrator.clock import PhaseClock
from orchestrator.evaluation import Evaluation
from orchestrator.grading import Grade
from orchestrator.records import StepRecord
from orchestrator.rollout_log import RolloutLog
from orchestrator.sampling import Group, SampledBatch, Sampler
from orchestrator.step import StaleWeights, TrainingStep

KEY = "eval/held_out/avg@1"
UPDATES = (  # of the two ranks
    UpdateReport(update_square_sum=9.0, weight_square_sum=16.0),
    UpdateReport(update_square_sum=7.0, weight_square_sum=48.0),
)


def group(prompt: int, version: int) -> Group:
    """Two responses of two tokens, one right and one wrong."""
    response = Response(
        token_ids=np.zeros(2, np.int32), logprobs=np.zeros(2, np.float32), finished=True, weight_version=version
    )
    ids = np.array([prompt], np.int32)
    return Group(
        prompt=prompt,
        prompt_ids=ids,
        responses=(response, response),
        grades=(Grade(score=1.0, reward=1.0), Grade(score=0.0, reward=0.0)),
    )


class FakeSampler:
    """Three groups a step, of which the first is dropped; at the empty steps all are. Samples with `version`."""

    def __init__(self, journal: list[str], empty: set[int]) -> None:
        self.journal = journal
        self.empty = empty
        self.version = 0
        self.kept_version: int | None = None  # of the groups that are trained on, where it is another one
        self.fails_at: int | None = None

    def next_batch(self, step: int, clock: PhaseClock) -> SampledBatch:
        self.journal.append("sample")
        if step == self.fails_at:
            raise WorkerLost("rollout-0", "generate", "it died")
        kept_version = self.version if self.kept_version is None else self.kept_version
        dropped = group(10 * step, self.version)
        kept = (group(10 * step + 1, kept_version), group(10 * step + 2, kept_version))
        return SampledBatch(
            kept=() if step in self.empty else kept, generated=(dropped, *kept), rounds=1, prompts_dropped=0
        )


class FakeWorkers:
    """Two learner ranks that report the same updates whenever they are told to make one; what is published reaches the
    sampler. The scheduler updates when there is a gradient, but for the steps at which it is told not to.
    """

    def __init__(self, journal: list[str], sampler: FakeSampler, no_update: set[int]) -> None:
        self.journal = journal
        self.sampler = sampler
        self.no_update = no_update
        self.version = 0
        self.shards: list[Sequence[LearnerShard]] = []  # of each step
        self.seen: list[dict[str, float]] = []
        self.asked: list[tuple[int, int, int]] = []  # step, reports, prompts
        self.orders: list[StepDecision] = []

    def compute_gradients(self, shards: Sequence[LearnerShard]) -> list[GradientReport]:
        self.journal.append("gradients")
        self.shards.append(shards)
        return [GradientReport(grad_square_sum=1.0) for _ in shards]

    def token_records(self) -> list[list[list[TokenRecord]]]:
        """The log-probs of a sequence are its prompt's number."""
        return [
            [
                [
                    TokenRecord(train_logprobs=np.full(2, sequence.prompt_ids[0], np.float32), advantages=np.zeros(2))
                    for sequence in microbatch
                ]
                for microbatch in shard.microbatches
            ]
            for shard in self.shards[-1]
        ]

    def decide(
        self, step: int, reports: Sequence[GradientReport], metrics: dict[str, float], num_prompts: int
    ) -> StepDecision:
        self.journal.append("decide")
        self.seen.append(dict(metrics))
        self.asked.append((step, len(reports), num_prompts))
        return StepDecision(
            decision=LrDecision(step=step, lr=1e-6, events=("decay",) if step == 1 else ()),
            grad_scale=1.0,
            update=bool(reports) and step not in self.no_update,
            metrics={**metrics, "scheduler/lr": 1e-6, "broken": math.nan},
        )

    def apply(self, order: StepDecision) -> list[UpdateReport]:
        self.journal.append("apply")
        self.orders.append(order)
        return [update if order.update else UpdateReport() for update in UPDATES]

    def publish(self) -> None:
        self.version += 1
        self.journal.append(f"publish {self.version}")
        self.sampler.version = self.version


class FakeEvaluation:
    """Due at even steps; the value is the step number."""

    def __init__(self, journal: list[str]) -> None:
        self.journal = journal

    def due(self, step: int) -> bool:
        return step % 2 == 0

    def run(self, step: int, keep: Any) -> dict[str, float]:
        self.journal.append("evaluate")
        return {KEY: float(step)}


class FakeRolloutLog:
    """Due at odd steps; remembers what it was handed."""

    def __init__(self) -> None:
        self.recorded: list[tuple[int, Sequence[Group], Sequence[TokenRecord]]] = []

    def due(self, step: int) -> bool:
        return step % 2 == 1

    def training(self, step: int, kept: Sequence[Group], records: Sequence[TokenRecord]) -> None:
        self.recorded.append((step, kept, records))

    def evaluated(self, step: int, of_set: Any) -> None:
        raise AssertionError("FakeEvaluation hands nothing over")


class Stage:
    """A step over two learner ranks with fakes all around it, and what it gave."""

    def __init__(
        self,
        config: LearnerConfig | None = None,
        *,
        empty: set[int] | None = None,
        no_update: set[int] | None = None,
        evaluates: bool = False,
        records: bool = False,
        max_staleness: int = 0,
    ) -> None:
        self.journal: list[str] = []
        self.rollout_log = FakeRolloutLog()
        self.sampler = FakeSampler(self.journal, empty or set())
        self.workers = FakeWorkers(self.journal, self.sampler, no_update or set())
        self.records: list[StepRecord] = []
        self.step = TrainingStep(
            sampler=cast(Sampler, self.sampler),
            workers=self.workers,
            num_learners=len(UPDATES),
            evaluation=cast(Evaluation, FakeEvaluation(self.journal)) if evaluates else None,
            rollout_log=cast(RolloutLog, self.rollout_log) if records else None,
            config=config or LearnerConfig(),
            max_staleness=max_staleness,
        )

    def run(self, steps: int, *, ahead: bool = False) -> "Stage":
        """Do that many steps; ahead: sampling the next batch meanwhile, but in the last one."""
        for step in range(steps):
            goes_ahead = ahead and step < steps - 1
            self.records.append(self.step.step(step, PhaseClock(), PhaseClock() if goes_ahead else None))
        return self


def test_a_step_goes_through_its_phases_in_order() -> None:
    stage = Stage().run(1)
    assert stage.journal == ["sample", "gradients", "decide", "apply", "publish 1"]


def test_an_evaluation_comes_before_the_decision_and_the_scheduler_sees_its_metric() -> None:
    stage = Stage(evaluates=True).run(3)
    first = stage.journal[: stage.journal.index("publish 1")]
    assert first.index("evaluate") < first.index("decide") < first.index("apply")
    assert [seen.get(KEY) for seen in stage.workers.seen] == [0.0, None, 2.0]
    assert [done.metrics.get(KEY) for done in stage.records] == [0.0, None, 2.0]
    assert ["time/evaluate" in done.metrics for done in stage.records] == [True, False, True]


def test_rollouts_are_recorded_when_due_with_the_learners_records_in_the_order_of_the_responses() -> None:
    stage = Stage(records=True).run(4)
    assert [step for step, _, _ in stage.rollout_log.recorded] == [1, 3]
    asked = [[shard.keep_tokens for shard in shards] for shards in stage.workers.shards]
    assert asked == [[False] * 2, [True] * 2] * 2
    _, kept, records = stage.rollout_log.recorded[0]
    assert [group.prompt for group in kept] == [11, 12]
    assert [record.train_logprobs.tolist() for record in records] == [[11, 11], [11, 11], [12, 12], [12, 12]]


def test_a_run_without_evaluation_never_evaluates() -> None:
    stage = Stage().run(3)
    assert "evaluate" not in stage.journal
    assert not any(KEY in seen for seen in stage.workers.seen)


def test_the_scheduler_sees_the_batch_and_how_many_prompts_are_trained_on() -> None:
    stage = Stage(empty={1}).run(3)
    assert stage.workers.asked == [(0, 2, 2), (1, 0, 0), (2, 2, 2)]
    assert [seen["sampling/groups"] for seen in stage.workers.seen] == [3.0] * 3
    assert [seen["sampling/groups_kept"] for seen in stage.workers.seen] == [2.0, 0.0, 2.0]


def test_an_empty_step_is_decided_but_applies_and_publishes_nothing() -> None:
    stage = Stage(empty={0}, evaluates=True).run(1)
    assert stage.journal == ["sample", "evaluate", "decide"]
    (done,) = stage.records
    assert done.metrics["scheduler/lr"] == 1e-6
    assert {"time/gradients", "time/apply", "time/publish"}.isdisjoint(done.metrics)
    assert {"time/decide", "time/step"} <= done.metrics.keys()


def test_a_step_without_update_publishes_nothing_and_tells_the_learners_so() -> None:
    stage = Stage(no_update={1}).run(3)
    assert [entry for entry in stage.journal if entry.startswith("publish")] == ["publish 1", "publish 2"]
    assert [order.update for order in stage.workers.orders] == [True, False, True]


def test_the_learners_get_the_order_of_every_step() -> None:
    stage = Stage().run(4)
    assert [order.decision.step for order in stage.workers.orders] == [0, 1, 2, 3]


def test_the_norm_of_the_update_is_known_only_when_there_was_one() -> None:
    stage = Stage(empty={1}, no_update={2}).run(4)
    ratios = [done.metrics.get("gradient/update_norm_ratio") for done in stage.records]
    # Of both ranks together: the root of (9 + 7) / (16 + 48).
    assert ratios == [0.5, None, None, 0.5]
    assert not any("gradient/update_norm_ratio" in seen for seen in stage.workers.seen)


def test_a_step_is_recorded_with_events_and_without_what_is_not_finite() -> None:
    stage = Stage().run(2)
    assert [done.events for done in stage.records] == [(), ("decay",)]
    assert all(math.isfinite(value) for done in stage.records for value in done.metrics.values())
    assert "broken" not in stage.records[0].metrics
    metrics = stage.records[1].metrics
    assert metrics["throughput/tokens_per_s"] * metrics["time/step"] == pytest.approx(metrics["sampling/tokens"])


@pytest.mark.parametrize(
    ("every", "in_halves"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (None, [])], ids=str
)
def test_halves_are_asked_for_only_at_the_steps_at_which_noise_is_due(every: int | None, in_halves: list[int]) -> None:
    stage = Stage(LearnerConfig(gradient_noise=GradientNoiseConfig(every=every))).run(5)
    for of_rank in zip(*stage.workers.shards, strict=True):
        assert [step for step, shard in enumerate(of_rank) if shard.num_first_half is not None] == in_halves


def test_the_halves_are_made_of_places_in_the_batch_not_of_prompt_numbers() -> None:
    stage = Stage().run(1)
    places = {
        (sequence.group, int(sequence.prompt_ids[0]))
        for shard in stage.workers.shards[0]
        for microbatch in shard.microbatches
        for sequence in microbatch
    }
    assert places == {(0, 1), (1, 2)}  # the first kept group is prompt 1: prompt 0 was dropped


@pytest.mark.parametrize("every", [1, None], ids=["in halves", "not in halves"])
def test_the_optimal_token_baseline_keeps_every_group_on_one_rank_and_sends_rewards(every: int | None) -> None:
    noise = GradientNoiseConfig(every=every)
    stage = Stage(LearnerConfig(advantage="optimal_token_baseline", gradient_noise=noise)).run(1)
    ranks: dict[int, set[int]] = {}
    rewards: dict[int, list[float]] = {}
    for rank, shard in enumerate(stage.workers.shards[0]):
        for sequence in (one for microbatch in shard.microbatches for one in microbatch):
            ranks.setdefault(sequence.group, set()).add(rank)
            rewards.setdefault(sequence.group, []).append(sequence.advantage)
    assert [len(of_group) for of_group in ranks.values()] == [1, 1]
    assert {place: sorted(values) for place, values in rewards.items()} == {0: [0.0, 1.0], 1: [0.0, 1.0]}


def test_responses_of_older_weights_stop_the_run_before_anything_is_learned() -> None:
    stage = Stage().run(1)
    stage.sampler.version = 0  # as if the published weights had not arrived
    with pytest.raises(StaleWeights, match=r"sampled with weights \[0\] at version 1"):
        stage.step.step(1, PhaseClock())
    assert stage.journal[-1] == "sample"


def test_a_batch_that_is_sampled_ahead_is_there_before_the_weights_change() -> None:
    stage = Stage(max_staleness=1).run(3, ahead=True)
    assert stage.journal.count("sample") == 3
    for step in (1, 2):
        before = stage.journal[: stage.journal.index(f"publish {step}")]
        assert before.count("sample") == step + 1
    assert [done.metrics["sampling/staleness_max"] for done in stage.records] == [0.0, 1.0, 1.0]
    assert [done.metrics["sampling/staleness_mean"] for done in stage.records] == [0.0, 1.0, 1.0]
    assert [{"time/await_rollout", "time/step"} <= done.metrics.keys() for done in stage.records] == [True, True, False]


def test_an_evaluation_is_of_the_weights_of_its_step_and_has_the_engines_for_itself() -> None:
    stage = Stage(max_staleness=1, evaluates=True).run(3, ahead=True)
    assert stage.journal[:3] == ["sample", "evaluate", "sample"]


def test_what_goes_wrong_while_sampling_ahead_ends_the_step_before_the_weights_change() -> None:
    stage = Stage(max_staleness=1)
    stage.sampler.fails_at = 1
    with pytest.raises(WorkerLost, match="rollout-0"):
        stage.run(2, ahead=True)
    assert "publish 1" not in stage.journal
    stage.step.abandon()
    stage.sampler.fails_at = None
    stage.run(1)
    assert stage.journal.count("sample") == 3


def test_older_weights_than_one_update_ago_stop_the_run_also_when_one_is_allowed() -> None:
    stage = Stage(max_staleness=1).run(2)
    stage.sampler.version = 0
    with pytest.raises(StaleWeights, match=r"\[0\] at version 2"):
        stage.step.step(2, PhaseClock())


def test_a_strictly_on_policy_run_says_nothing_of_staleness() -> None:
    stage = Stage().run(1)
    assert not any("staleness" in key for key in stage.records[0].metrics)


def test_responses_of_newer_weights_are_as_wrong() -> None:
    stage = Stage()
    stage.sampler.version = 3
    with pytest.raises(StaleWeights, match=r"sampled with weights \[3\] at version 0"):
        stage.step.step(0, PhaseClock())


@pytest.mark.parametrize(("dropped", "kept"), [(0, 1), (1, 0)])
def test_a_single_stale_group_is_enough_whether_it_is_trained_on_or_not(dropped: int, kept: int) -> None:
    stage = Stage().run(1)
    stage.sampler.version, stage.sampler.kept_version = dropped, kept
    with pytest.raises(StaleWeights, match=r"\[0\] at version 1"):
        stage.step.step(1, PhaseClock())


def test_weights_that_were_not_updated_keep_their_version() -> None:
    stage = Stage(empty={0}, no_update={1})
    stage.run(4)  # raises StaleWeights if an unpublished version were expected
    assert stage.sampler.version == 2


def test_weights_are_of_the_version_that_the_workers_say_wherever_a_run_begins() -> None:
    stage = Stage()
    stage.workers.version = stage.sampler.version = 40
    stage.run(2)
    assert stage.journal[4::5] == ["publish 41", "publish 42"]


def test_the_clock_is_told_of_every_phase_before_the_workers_are_asked() -> None:
    stage = Stage(evaluates=True)
    stage.step.step(0, PhaseClock(lambda phase: stage.journal.append(f"({phase})")))
    assert stage.journal == [
        "sample",
        *("(evaluate)", "evaluate"),
        *("(gradients)", "gradients"),
        *("(decide)", "decide"),
        *("(apply)", "apply"),
        *("(publish)", "publish 1"),
    ]


@pytest.mark.parametrize("method", ["compute_gradients", "token_records", "decide", "apply", "publish"])
def test_a_loss_ends_the_step_wherever_it_happens_and_nothing_follows(method: str) -> None:
    stage = Stage(records=True)
    stage.run(1)
    lost = WorkerLost("learner-1", method, "it died")

    def fail(*arguments: object) -> None:
        stage.journal.append("lost")
        raise lost

    setattr(stage.workers, method, fail)
    with pytest.raises(WorkerLost) as raised:
        stage.step.step(1, PhaseClock())
    assert raised.value is lost
    assert stage.journal[-1] == "lost"
    assert stage.rollout_log.recorded == [] or method in {"decide", "apply", "publish"}
