"""Real FSDP2 ranks on the embedded model for the learner's tests: one alone, or two that make a gang."""

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from actors.config import LearnerConfig, OptimizerConfig
from actors.faults import Faults
from actors.learner import Learner, LearnerSpec
from actors.lr_policies import LrDecision
from actors.messages import GradientReport, LearnerShard, SavedFile, StepDecision, TrainSequence, UpdateReport
from actors.storage.writer import CheckpointNotWritten

ROOT = Path(__file__).parents[2]
MODEL = str(ROOT / "orchestrator" / "demo" / "model")
HOST = "127.0.0.1"
VOCABULARY = 32
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# With an eps far above the gradient AdamW's first update is proportional to it, so a scaled gradient shows.
SPEC = LearnerSpec(
    model=MODEL,
    config=LearnerConfig(optimizer=OptimizerConfig(eps=1e3)),
    rank=0,
    world_size=1,
    temperature=0.9,
    max_response_tokens=16,
    wire_dtype="bfloat16",
    quantize=None,
    transfer="gloo",
    faults=Faults(),
)


def batch() -> list[TrainSequence]:
    """Eight ragged responses to five prompts."""
    rng = np.random.default_rng(4)
    lengths = [(3, 2), (5, 9), (1, 1), (4, 4), (2, 12), (6, 3), (3, 7), (2, 5)]
    return [
        TrainSequence(
            group=group,
            prompt_ids=rng.integers(0, VOCABULARY, prompt).astype(np.int32),
            response_ids=rng.integers(0, VOCABULARY, response).astype(np.int32),
            rollout_logprobs=-rng.exponential(3.0, response).astype(np.float32),
            advantage=float(rng.normal()),
        )
        for group, (prompt, response) in zip([0, 0, 1, 1, 2, 3, 3, 4], lengths, strict=True)
    ]


def shard_of(*microbatches: Sequence[TrainSequence]) -> LearnerShard:
    """A rank's shard of the batch above."""
    return LearnerShard(
        microbatches=tuple(tuple(microbatch) for microbatch in microbatches),
        num_first_half=None,
        num_tokens=sum(len(sequence.response_ids) for sequence in batch()),
        num_sequences=len(batch()),
    )


def order(lr: float, grad_scale: float = 1.0, update: bool = True) -> StepDecision:
    decision = LrDecision(step=0, lr=lr, events=())
    return StepDecision(decision=decision, grad_scale=grad_scale, update=update, metrics={})


def compute(learner: Learner, shard: LearnerShard) -> GradientReport:
    """The gradient's report; the gradient itself is dropped."""
    report = learner.compute_gradients(shard)
    learner.apply(order(lr=1.0, update=False))
    return report


def weights_of(learner: Learner) -> dict[str, Tensor]:
    """A copy of all weights, bit for bit."""
    return {name: tensor.full_tensor().clone() for name, tensor in learner._model.exported_state().items()}


def largest_difference(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


@contextmanager
def lone_rank() -> Iterator[Callable[..., Learner]]:
    """A function that starts a learner alone in its gang, of a model, with changes to its config; one at a time."""

    def start(model: str = MODEL, **changes: Any) -> Learner:
        close()
        learner = Learner(replace(SPEC, model=model, config=SPEC.config.model_copy(update=changes)))
        learner.start(learner.open_rendezvous(HOST))
        return learner

    def close() -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    try:
        yield start
    finally:
        close()


Call = tuple[Any, ...]  # a function of a learner and its further arguments, which another process can import
RankResult = tuple[list[GradientReport], UpdateReport, list[np.ndarray]]
SECOND_RANK = """
import pickle, sys
sys.path.insert(0, "tests/actors")
import torch.distributed as dist
from actors.learner import Learner
from learner_ranks import play
spec, address, calls = pickle.load(sys.stdin.buffer)
learner = Learner(spec)
learner.start(address)
pickle.dump(play(learner, calls), sys.stdout.buffer)
dist.destroy_process_group()
"""


def run_rank(
    learner: Learner, shards: Sequence[LearnerShard], order: StepDecision, sequences: Sequence[TrainSequence]
) -> RankResult:
    """Reports on all shards, what the update with the last one's gradient did, and scores after it."""
    reports = [compute(learner, shard) for shard in shards[:-1]]
    reports.append(learner.compute_gradients(shards[-1]))
    return reports, learner.apply(order), learner.score(sequences)


def run_two_ranks(
    config: LearnerConfig,
    shards: Sequence[Sequence[LearnerShard]],
    order: StepDecision,
    sequences: Sequence[TrainSequence],
) -> tuple[RankResult, RankResult]:
    """`run_rank` of each rank, on the shards [steps][ranks]."""
    calls = [[(run_rank, of_rank, order, sequences)] for of_rank in zip(*shards, strict=True)]
    (first,), (second,) = play_on_two_ranks(config, *calls)
    return first, second


def play(learner: Learner, calls: Sequence[Call]) -> list[Any]:
    """What a learner answers to each call."""
    return [function(learner, *arguments) for function, *arguments in calls]


def play_on_two_ranks(
    config: LearnerConfig, first_calls: Sequence[Call], second_calls: Sequence[Call]
) -> tuple[list[Any], list[Any]]:
    """`play` of each rank: the first in this process, the second in its own."""
    specs = [replace(SPEC, config=config, rank=rank, world_size=2) for rank in range(2)]
    first = Learner(specs[0])
    address = first.open_rendezvous(HOST)
    child = subprocess.Popen(
        [sys.executable, "-c", SECOND_RANK], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdin and child.stdout
        pickle.dump((specs[1], address, second_calls), child.stdin)
        child.stdin.close()
        first.start(address)
        return play(first, first_calls), pickle.load(child.stdout)
    finally:
        dist.destroy_process_group()
        child.kill()
        child.wait()


def train(learner: Learner, shard: LearnerShard, steps: int = 1) -> list[GradientReport]:
    """Steps on the same data, with gradients that differ from step to step as the weights do."""
    reports = []
    for _ in range(steps):
        reports.append(learner.compute_gradients(shard))
        learner.apply(order(lr=1e-3))
    return reports


def state_of(learner: Learner) -> dict[str, Tensor]:
    """Copies of the whole weights and moments, and of this rank's random state."""
    state = learner._state._tensors() | learner._state._random()
    whole = {name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for name, tensor in state.items()}
    return {name: tensor.clone() for name, tensor in whole.items()}


def save(learner: Learner, folder: Path) -> tuple[SavedFile, ...] | CheckpointNotWritten:
    """The files a rank wrote, or why it did not."""
    learner.save(str(folder))
    try:
        return learner.written(timeout_s=60)
    except CheckpointNotWritten as error:
        return error
