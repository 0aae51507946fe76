"""What crosses a process boundary: frozen records, each shown filled in."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from actors.corrections import CorrectionSums
from actors.gradient_noise import HalfSums
from actors.lr_policies import LrDecision
from actors.statistics import MismatchSums
from actors.sums import NESTED, SUM, Sums

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """One prompt and the seeds of the responses wanted for it.

    Example:
        SampleRequest(prompt_ids=array([5, 14, 7], dtype=int32), seeds=(811, 402))
    """

    prompt_ids: IntArray  # [P]
    seeds: tuple[int, ...]  # one per response
    temperature: float | None = None  # None: the rollout's; 0 takes the likeliest token


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One sampled response, with the sampler's own log-probs.

    Example:
        Response(token_ids=array([9, 2], dtype=int32), logprobs=array([-0.11, -0.02], dtype=float32),
                 finished=True, weight_version=12)
    """

    token_ids: IntArray  # [T], with the end token when there is one
    logprobs: FloatArray  # [T] natural logarithms, after temperature
    finished: bool  # False when cut at the length limit
    weight_version: int  # of the weights that sampled it


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSequence:
    """A prompt with one of its responses, as the learner sees it.

    Example:
        TrainSequence(group=3, sample=0, prompt_ids=array([5, 14, 7]), response_ids=array([9, 2]),
                      rollout_logprobs=array([-0.11, -0.02]), advantage=0.94)
    """

    group: int  # place of its prompt in the step's batch; the even ones are half 1, the odd ones half 2
    sample: int = 0  # which of the responses to its prompt
    prompt_ids: IntArray  # [P]
    response_ids: IntArray  # [T]
    rollout_logprobs: FloatArray  # [T]
    advantage: float  # of every token; under the optimal token baseline the reward, which the learner takes B_t from


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerShard:
    """One rank's part of a step's batch, and the totals of the whole batch that the loss divides by.

    Every rank has the same number of micro-batches, in each half where there are halves; one that runs out gets empty
    ones.

    Example:
        LearnerShard(microbatches=((sequence, sequence), ()), num_first_half=1, num_tokens=3120, num_sequences=128)
    """

    microbatches: tuple[tuple[TrainSequence, ...], ...]
    num_first_half: int | None  # micro-batches of half 1, which come first; None where no noise is estimated
    num_tokens: int  # response tokens of the step, over all ranks
    num_sequences: int  # sequences of the step, over all ranks
    keep_tokens: bool = False  # keep what `TokenRecord` says until it is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFile:
    """A file of a checkpoint, as the process that wrote it says.

    Example:
        SavedFile(name="learner/__0_0.distcp", num_bytes=7340032, sha256="9f86d081884c7d65...")
    """

    name: str  # relative to the checkpoint's folder, with /
    num_bytes: int
    sha256: str  # hexadecimal


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """What a learner knows of one sequence's tokens; fetched for recorded rollouts only.

    Example:
        TokenRecord(train_logprobs=array([-0.12, -0.02], dtype=float32), advantages=array([0.94, 0.94]))
    """

    train_logprobs: FloatArray  # [T] under the weights that the gradient was taken at
    advantages: NDArray[np.float64]  # [T]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientReport(Sums):
    """Sufficient statistics of one rank's forward and backward pass: sums, never means.

    Loss and gradient are still divided by the counts of the whole step, sequences that a correction dropped included;
    the scheduler, which alone knows how many those were, corrects for them.

    Example:
        GradientReport(mismatch=MismatchSums(), correction=CorrectionSums(), halves=HalfSums(), entropy_sum=812.4,
                       loss=-0.01, grad_square_sum=0.31, nonfinite=0)
    """

    mismatch: MismatchSums = field(default=MismatchSums(), metadata=NESTED)
    correction: CorrectionSums = field(default=CorrectionSums(), metadata=NESTED)
    halves: HalfSums = field(default=HalfSums(), metadata=NESTED)  # of nothing where no noise is estimated
    entropy_sum: float = field(default=0.0, metadata=SUM)  # nats, over this rank's response tokens
    loss: float = field(default=0.0, metadata=SUM)  # this rank's share of the step's loss; shares add up
    grad_square_sum: float = field(default=0.0, metadata=SUM)  # over the gradient elements this rank holds
    nonfinite: int = field(default=0, metadata=SUM)  # of the gradient elements this rank holds


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDecision:
    """What the scheduler tells every learner rank to do with its gradient, and the merged metrics it decided on.

    Example:
        StepDecision(decision=LrDecision(step=41, lr=5e-07, events=("decay",)), grad_scale=0.83, update=True,
                     metrics={"gradient/norm": 1.2})
    """

    decision: LrDecision
    grad_scale: float  # factor on the gradient: clips it, and makes up for the sequences that a correction dropped
    update: bool  # False: leave the weights alone (no data, or a non-finite gradient)
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReport(Sums):
    """What one rank's update did to the weights it holds.

    Example:
        UpdateReport(update_square_sum=4e-10, weight_square_sum=812.0)
    """

    update_square_sum: float = field(default=0.0, metadata=SUM)
    weight_square_sum: float = field(default=0.0, metadata=SUM)  # before the update

    @property
    def norm_ratio(self) -> float:
        """Norm of the update over the norm of the weights, of all merged ranks; 0 when all weights are 0."""
        return math.sqrt(self.update_square_sum / self.weight_square_sum) if self.weight_square_sum else 0.0
