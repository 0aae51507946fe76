"""The stand-in for a learner rank: statistics, updates, publication and checkpoints."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from actors.config import LearnerConfig
from actors.corrections import NoCorrection
from actors.faults import Faults
from actors.lr_policies import ConstantConfig
from actors.messages import GradientReport, LearnerShard, SampleRequest, StepDecision, TrainSequence, UpdateReport
from actors.scheduler import Scheduler
from actors.simulated.config import SecondsConfig, SimulationConfig
from actors.simulated.learner import SimulatedLearner, SimulatedLearnerSpec
from actors.simulated.rollout_worker import SimulatedEngineSpec, SimulatedRolloutWorker
from actors.simulated.weights import NAMES
from actors.storage.writer import CheckpointNotWritten

SIMULATION = SimulationConfig(
    seconds=SecondsConfig(start=0, generate=0, gradients=0, apply=0, publish=0), mismatch=0.001
)


WHOLE = Faults()


class Direct:
    """A peer in this very process."""

    def __init__(self, worker: SimulatedRolloutWorker) -> None:
        self.worker = worker

    def ask(self, method: str, *args: object) -> Callable[[], object]:
        getattr(self.worker, method)(*args)
        return lambda: None


def learner(rank: int = 0, world_size: int = 1, faults: Faults = WHOLE) -> SimulatedLearner:
    return SimulatedLearner(
        SimulatedLearnerSpec(
            config=SIMULATION, correction=NoCorrection(), rank=rank, world_size=world_size, faults=faults
        )
    )


def engine() -> SimulatedRolloutWorker:
    return SimulatedRolloutWorker(
        SimulatedEngineSpec(config=SIMULATION, model="nowhere", index=0, max_model_len=512, max_response_tokens=64)
    )


def sampled(worker: SimulatedRolloutWorker, number: int = 8) -> list[TrainSequence]:
    prompt = np.arange(3, 9, dtype=np.int32)
    [responses] = worker.generate([SampleRequest(prompt_ids=prompt, seeds=tuple(range(number)))])
    return [
        TrainSequence(
            group=place // 2,
            sample=place % 2,
            prompt_ids=prompt,
            response_ids=response.token_ids,
            rollout_logprobs=response.logprobs,
            advantage=1.0 - place % 2,
        )
        for place, response in enumerate(responses)
    ]


def shard(sequences: list[TrainSequence], *, keep_tokens: bool = False) -> LearnerShard:
    return LearnerShard(
        microbatches=(tuple(sequences[:4]), tuple(sequences[4:])),
        num_first_half=1,
        num_tokens=sum(len(one.response_ids) for one in sequences),
        num_sequences=len(sequences),
        keep_tokens=keep_tokens,
    )


def decided(report: GradientReport, lr: float = 1e-3) -> StepDecision:
    scheduler = Scheduler(ConstantConfig(lr=lr).build(total_steps=None), LearnerConfig())
    return scheduler.decide(0, [report], {}, num_prompts=4)


def largest_gap(rank: SimulatedLearner, worker: SimulatedRolloutWorker, stale: tuple[str, ...] = ()) -> float:
    sequences = sampled(worker)
    scored = rank.score(sequences, stale)
    return max(float(np.abs(mine - one.rollout_logprobs).max()) for mine, one in zip(scored, sequences, strict=True))


def test_a_report_counts_what_it_was_given_and_measures_the_mismatch_that_the_config_says() -> None:
    sequences = sampled(engine())
    report = learner().compute_gradients(shard(sequences))
    assert report.mismatch.sequences == report.correction.sequences == 8
    assert report.mismatch.tokens == sum(len(one.response_ids) for one in sequences)
    assert 0 < report.mismatch.token_abs_diff_max <= 0.001 + 1e-6
    assert report.halves.first_sequences == 4
    assert report.grad_square_sum > 0
    metrics = decided(report).metrics
    assert {"gradient/norm", "gradient/noise", "policy/entropy", "mismatch/kl"} <= metrics.keys()


def test_a_rank_without_a_sequence_reports_nothing() -> None:
    empty = LearnerShard(microbatches=((), ()), num_first_half=1, num_tokens=10, num_sequences=2)
    report = learner().compute_gradients(empty)
    assert report.mismatch.tokens == 0
    assert report.loss == 0.0


def test_token_records_are_kept_only_where_they_are_asked_for() -> None:
    rank, sequences = learner(), sampled(engine())
    rank.compute_gradients(shard(sequences))
    assert rank.token_records() == []
    rank.compute_gradients(shard(sequences, keep_tokens=True))
    records = rank.token_records()
    assert [len(of_one) for of_one in records] == [4, 4]
    assert records[0][0].train_logprobs.shape == sequences[0].response_ids.shape


def test_an_update_moves_the_weights_as_the_rate_says_and_every_rank_moves_them_alike() -> None:
    ranks = [learner(0, 2), learner(1, 2)]
    order = decided(ranks[0].compute_gradients(shard(sampled(engine()))))
    reports = [rank.apply(order) for rank in ranks]
    assert reports[0] == reports[1]
    assert reports[0].update_square_sum > 0
    assert ranks[0]._weights.values == ranks[1]._weights.values
    held = StepDecision(decision=order.decision, grad_scale=1.0, update=False, metrics={})
    assert ranks[0].apply(held) == UpdateReport()
    assert ranks[0]._weights.values == ranks[1]._weights.values


def test_published_weights_are_those_that_sample() -> None:
    rank, worker = learner(), engine()
    rank.connect("here", [Direct(worker)])
    rank.perturb(1)
    assert largest_gap(rank, worker) > 0.01
    rank.publish(5)
    assert largest_gap(rank, worker) <= 0.001 + 1e-6
    assert (
        worker.generate([SampleRequest(prompt_ids=np.arange(3, dtype=np.int32), seeds=(1,))])[0][0].weight_version == 5
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_that_is_not_sent_shows_and_is_known_by_its_old_value(name: str) -> None:
    rank, worker = learner(faults=Faults(dropped_tensors=(name,))), engine()
    rank.connect("here", [Direct(worker)])
    rank.perturb(1)
    rank.publish(0)
    assert largest_gap(rank, worker) > 0.01
    assert largest_gap(rank, worker, (name,)) <= 0.001 + 1e-6


def test_what_was_perturbed_is_restored_bit_for_bit() -> None:
    rank = learner()
    rank.apply(decided(rank.compute_gradients(shard(sampled(engine())))))
    before = dict(rank._weights.values)
    rank.perturb(3)
    assert rank._weights.values != before
    rank.restore()
    assert rank._weights.values == before


def test_a_rank_goes_on_from_its_files_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    rank, successor = learner(), learner()
    order = decided(rank.compute_gradients(shard(sampled(engine()))))
    rank.apply(order)
    rank.save(str(tmp_path / "learner"))
    [file] = rank.written(1.0)
    assert (tmp_path / file.name).stat().st_size == file.num_bytes
    successor.load(str(tmp_path / "learner"))
    rank.apply(order)
    successor.apply(order)
    assert successor._weights.to_json() == rank._weights.to_json()


def test_a_file_that_cannot_be_written_is_told_of_when_asked(tmp_path: Path) -> None:
    (tmp_path / "learner").write_text("in the way")
    rank = learner()
    rank.save(str(tmp_path / "learner"))
    with pytest.raises(CheckpointNotWritten, match="checkpoint not written"):
        rank.written(1.0)
