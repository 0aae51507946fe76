"""A real FSDP2 rank on the embedded model, alone over gloo; and two ranks that add up to one."""

import math
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import AutoModelForCausalLM

from actors.config import Dtype, LearnerConfig, OptimizerConfig
from actors.faults import Faults
from actors.learner import Learner, LearnerSpec
from actors.lr_policies import LrDecision
from actors.messages import GradientReport, LearnerShard, StepDecision, TrainSequence
from actors.statistics import MismatchSums

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MODEL = str(ROOT / "orchestrator" / "demo" / "model")
HOST = "127.0.0.1"
VOCABULARY = 32
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# With an eps far above the gradient AdamW's first update is proportional to it, so a clipped gradient shows.
SPEC = LearnerSpec(
    model=MODEL,
    config=LearnerConfig(optimizer=OptimizerConfig(eps=10.0)),
    rank=0,
    world_size=1,
    temperature=0.9,
    max_response_tokens=16,
    wire_dtype="bfloat16",
    transfer="gloo",
    faults=Faults(),
)


def batch() -> list[TrainSequence]:
    """Seven ragged sequences."""
    rng = np.random.default_rng(4)
    lengths = [(3, 2), (5, 9), (1, 1), (4, 4), (2, 12), (6, 3), (3, 7)]
    return [
        TrainSequence(
            prompt_ids=rng.integers(0, VOCABULARY, prompt).astype(np.int32),
            response_ids=rng.integers(0, VOCABULARY, response).astype(np.int32),
            rollout_logprobs=-rng.exponential(3.0, response).astype(np.float32),
            advantage=float(rng.normal()),
        )
        for prompt, response in lengths
    ]


def shard_of(*microbatches: Sequence[TrainSequence]) -> LearnerShard:
    """A rank's shard of the batch above."""
    return LearnerShard(
        microbatches=tuple(tuple(microbatch) for microbatch in microbatches),
        num_tokens=sum(len(sequence.response_ids) for sequence in batch()),
        num_sequences=len(batch()),
    )


def order(lr: float, clip_scale: float = 1.0, update: bool = True) -> StepDecision:
    decision = LrDecision(step=0, lr=lr, events=())
    return StepDecision(decision=decision, clip_scale=clip_scale, update=update, metrics={})


def weights_of(learner: Learner) -> dict[str, Tensor]:
    """A copy of all weights, bit for bit."""
    return {name: tensor.full_tensor().clone() for name, tensor in learner._model.exported_state().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def largest_difference(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Learner]]:
    """A function that starts a learner alone in its gang; the last one is closed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where ranks on one machine meet
    learners: list[Learner] = []

    def start(dtype: Dtype = "float32") -> Learner:
        close()
        learners.append(Learner(replace(SPEC, config=SPEC.config.model_copy(update={"dtype": dtype}))))
        learners[-1].start(learners[-1].open_rendezvous(HOST))
        return learners[-1]

    def close() -> None:
        if learners:
            learners.clear()
            if dist.is_initialized():
                dist.destroy_process_group()

    yield start
    close()


@pytest.fixture
def learner(build: Callable[..., Learner]) -> Learner:
    return build()


def compute(learner: Learner, *microbatches: Sequence[TrainSequence]) -> GradientReport:
    """The gradient's report; the gradient itself is dropped."""
    report = learner.compute_gradients(shard_of(*microbatches))
    learner.apply(order(lr=1.0, update=False))
    return report


def plain_gradient(sequences: Sequence[TrainSequence]) -> tuple[float, float]:
    """Square sum and loss of token_mean REINFORCE on the unsharded model, sequence by sequence."""
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    num_tokens = sum(len(sequence.response_ids) for sequence in sequences)
    value = 0.0
    for sequence in sequences:
        ids = torch.from_numpy(np.concatenate([sequence.prompt_ids, sequence.response_ids])).long()
        start = len(sequence.prompt_ids)
        log_softmax = torch.log_softmax(model(ids[None]).logits[0] / SPEC.temperature, dim=-1)
        logprobs = log_softmax[start - 1 : -1].gather(-1, ids[start:, None])
        (-sequence.advantage * logprobs.sum() / num_tokens).backward()
        value -= sequence.advantage * len(sequence.response_ids) / num_tokens
    gradients = [parameter.grad for parameter in model.parameters()]
    return sum(float(grad.double().square().sum()) for grad in gradients if grad is not None), value


def test_the_gradient_is_that_of_the_plain_model(learner: Learner) -> None:
    report = compute(learner, batch())
    square_sum, loss = plain_gradient(batch())
    assert report.grad_square_sum == pytest.approx(square_sum, rel=1e-4)
    assert report.loss == pytest.approx(loss, rel=1e-5)
    assert report.nonfinite == 0


def test_the_split_into_microbatches_changes_nothing(learner: Learner) -> None:
    sequences = batch()
    whole = compute(learner, sequences)
    for parts in ([[one] for one in sequences], [sequences[:2], sequences[2:], []]):
        split = compute(learner, *parts)
        assert split.grad_square_sum == pytest.approx(whole.grad_square_sum, rel=1e-5)
        assert split.loss == pytest.approx(whole.loss, rel=1e-5)
        assert split.entropy_sum == pytest.approx(whole.entropy_sum, rel=1e-5)
        assert split.mismatch.metrics() == pytest.approx(whole.mismatch.metrics(), rel=1e-4)


def test_the_mismatch_is_that_of_the_scored_logprobs(learner: Learner) -> None:
    sequences = batch()
    report = compute(learner, sequences[:3], sequences[3:])
    scored = np.concatenate(learner.score(sequences))
    sampled = np.concatenate([sequence.rollout_logprobs for sequence in sequences])
    expected = MismatchSums.from_logprobs(scored, sampled, [len(sequence.response_ids) for sequence in sequences])
    assert report.mismatch.metrics() == pytest.approx(expected.metrics(), rel=1e-4)
    assert report.mismatch.tokens == 38


def test_a_shard_of_empty_microbatches_reports_nothing_and_has_no_gradient(learner: Learner) -> None:
    report = compute(learner, [], [])
    assert report.mismatch == MismatchSums.empty()
    assert (report.loss, report.entropy_sum, report.grad_square_sum, report.nonfinite) == (0.0, 0.0, 0.0, 0)


def test_nonfinite_gradient_elements_are_counted(learner: Learner) -> None:
    (sequence, *_) = batch()
    poisoned = TrainSequence(
        prompt_ids=sequence.prompt_ids,
        response_ids=sequence.response_ids,
        rollout_logprobs=sequence.rollout_logprobs,
        advantage=math.inf,
    )
    assert compute(learner, [poisoned]).nonfinite > 0


def test_an_order_without_update_leaves_every_weight_and_drops_the_gradient(learner: Learner) -> None:
    before = weights_of(learner)
    learner.compute_gradients(shard_of(batch()))
    learner.apply(order(lr=1.0, update=False))
    assert same(weights_of(learner), before)
    learner.apply(order(lr=1.0))
    assert same(weights_of(learner), before), "the gradient was still there"


def test_a_learning_rate_of_zero_leaves_every_weight(learner: Learner) -> None:
    before = weights_of(learner)
    learner.compute_gradients(shard_of(batch()))
    learner.apply(order(lr=0.0))
    assert same(weights_of(learner), before)


def test_the_learning_rate_is_that_of_the_order_at_every_step(learner: Learner) -> None:
    before = weights_of(learner)
    learner.compute_gradients(shard_of(batch()))
    learner.apply(order(lr=1.0))
    after = weights_of(learner)
    assert not same(after, before)
    learner.compute_gradients(shard_of(batch()))
    learner.apply(order(lr=0.0))
    assert same(weights_of(learner), after)


def test_the_gradient_is_scaled_before_the_update(build: Callable[..., Learner]) -> None:
    moved = []
    for clip_scale in (1.0, 0.25):
        learner = build()
        before = weights_of(learner)[EMBEDDING]
        learner.compute_gradients(shard_of(batch()))
        learner.apply(order(lr=10.0, clip_scale=clip_scale))
        moved.append((weights_of(learner)[EMBEDDING] - before).norm().item())
    assert moved[0] > 0
    assert moved[1] == pytest.approx(0.25 * moved[0], rel=0.02)


def test_a_perturbation_is_taken_back_bit_for_bit(learner: Learner) -> None:
    before, scores = weights_of(learner), learner.score(batch())
    learner.perturb(seed=3)
    perturbed = weights_of(learner)
    assert not any(torch.equal(before[name], perturbed[name]) for name in before)
    assert largest_difference(learner.score(batch()), scores) > 0.1
    learner.restore()
    assert same(weights_of(learner), before)
    assert largest_difference(learner.score(batch()), scores) == 0


def test_scores_with_every_tensor_stale_are_those_before_the_perturbation(learner: Learner) -> None:
    scores = learner.score(batch())
    learner.perturb(seed=3)
    perturbed = weights_of(learner)
    assert largest_difference(learner.score(batch(), stale=learner.tensor_names()), scores) == 0
    assert same(weights_of(learner), perturbed), "scoring with stale tensors must leave the weights alone"


def test_the_two_names_of_a_tied_tensor_can_be_stale_one_without_the_other(learner: Learner) -> None:
    before = learner.score(batch())
    learner.perturb(seed=3)
    after = learner.score(batch())
    head, embedding, both = (learner.score(batch(), stale) for stale in ([HEAD], [EMBEDDING], [EMBEDDING, HEAD]))
    seen = [before, after, head, embedding, both]
    for i, one in enumerate(seen):
        assert all(largest_difference(one, other) > 0.01 for other in seen[i + 1 :])


def test_bfloat16_is_close_to_float32_and_keeps_float32_weights(build: Callable[..., Learner]) -> None:
    exact = build("float32")
    expected, gradient = exact.score(batch()), compute(exact, batch())
    learner = build("bfloat16")
    assert {tensor.dtype for tensor in weights_of(learner).values()} == {torch.float32}
    scores = learner.score(batch())
    assert {one.dtype for one in scores} == {np.dtype(np.float32)}
    assert 0 < largest_difference(scores, expected) < 0.5
    assert compute(learner, batch()).grad_square_sum == pytest.approx(gradient.grad_square_sum, rel=0.1)


def test_half_of_a_tied_tensor_can_be_stale_in_bfloat16_too(build: Callable[..., Learner]) -> None:
    learner = build("bfloat16")
    before = learner.score(batch())
    learner.perturb(seed=3)
    assert largest_difference(learner.score(batch(), [HEAD]), before) > 0.01
    assert largest_difference(learner.score(batch(), learner.tensor_names()), before) == 0


def test_names_that_a_publication_sends_hold_both_names_of_the_tied_tensor(learner: Learner) -> None:
    names = learner.tensor_names()
    assert EMBEDDING in names and HEAD in names
    assert len(names) == len(set(names))


def test_two_ranks_add_up_to_one(learner: Learner, build: Callable[..., Learner]) -> None:
    sequences = batch()
    alone = learner.compute_gradients(shard_of(sequences))
    learner.apply(order(lr=10.0, clip_scale=0.5))
    expected = learner.score(sequences)
    dist.destroy_process_group()
    # The second rank has less to do, and an empty micro-batch.
    shards = [shard_of(sequences[:3], sequences[3:5]), shard_of(sequences[5:], [])]
    reports, scores = zip(*run_two_ranks(shards, order(lr=10.0, clip_scale=0.5), sequences), strict=True)
    merged = GradientReport.merge(reports)
    assert merged.grad_square_sum == pytest.approx(alone.grad_square_sum, rel=1e-5)
    assert merged.loss == pytest.approx(alone.loss, rel=1e-5)
    assert merged.entropy_sum == pytest.approx(alone.entropy_sum, rel=1e-5)
    assert merged.mismatch.metrics() == pytest.approx(alone.mismatch.metrics(), rel=1e-4)
    for of_rank in scores:
        assert largest_difference(of_rank, expected) < 1e-4


SECOND_RANK = """
import pickle, sys
import torch.distributed as dist
from actors.learner import Learner
spec, address, shard, order, sequences = pickle.load(sys.stdin.buffer)
learner = Learner(spec)
learner.start(address)
report = learner.compute_gradients(shard)
learner.apply(order)
pickle.dump((report, learner.score(sequences)), sys.stdout.buffer)
dist.destroy_process_group()
"""


def run_two_ranks(
    shards: Sequence[LearnerShard], order: StepDecision, sequences: Sequence[TrainSequence]
) -> list[tuple[GradientReport, Any]]:
    """Report and scores after one step of each rank: the first in this process, the second in one of its own."""
    specs = [replace(SPEC, rank=rank, world_size=2) for rank in range(2)]
    first = Learner(specs[0])
    address = first.open_rendezvous(HOST)
    child = subprocess.Popen(
        [sys.executable, "-c", SECOND_RANK], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdin and child.stdout
        pickle.dump((specs[1], address, shards[1], order, sequences), child.stdin)
        child.stdin.close()
        first.start(address)
        report = first.compute_gradients(shards[0])
        first.apply(order)
        scores = first.score(sequences)
        return [(report, scores), pickle.load(child.stdout)]
    finally:
        dist.destroy_process_group()
        child.kill()
        child.wait()
