"""What crosses a process boundary: frozen records, each shown filled in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.lr_policies import LrDecision
from actors.statistics import MismatchSums

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
        TrainSequence(prompt_ids=array([5, 14, 7]), response_ids=array([9, 2]), rollout_logprobs=array([-0.11, -0.02]),
                      advantage=0.94)
    """

    prompt_ids: IntArray  # [P]
    response_ids: IntArray  # [T]
    rollout_logprobs: FloatArray  # [T]
    advantage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerShard:
    """One rank's part of a step's batch, and the totals of the whole batch that the loss divides by.

    Every rank has the same number of micro-batches; one that runs out gets empty ones.

    Example:
        LearnerShard(microbatches=((sequence, sequence), ()), num_tokens=3120, num_sequences=128)
    """

    microbatches: tuple[tuple[TrainSequence, ...], ...]
    num_tokens: int  # response tokens of the step, over all ranks
    num_sequences: int  # sequences of the step, over all ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientReport:
    """Sufficient statistics of one rank's forward and backward pass: sums, never means.

    Example:
        GradientReport(mismatch=MismatchSums.empty(), entropy_sum=812.4, loss=-0.01, grad_square_sum=0.31, nonfinite=0)
    """

    mismatch: MismatchSums
    entropy_sum: float  # nats, over this rank's response tokens
    loss: float  # this rank's share of the step's loss; shares add up
    grad_square_sum: float  # over the gradient elements this rank holds
    nonfinite: int  # of the gradient elements this rank holds

    @staticmethod
    def merge(reports: Sequence["GradientReport"]) -> "GradientReport":
        """Add up the reports of all ranks, in rank order."""
        return GradientReport(
            mismatch=MismatchSums.empty().merge(*(report.mismatch for report in reports)),
            entropy_sum=sum(report.entropy_sum for report in reports),
            loss=sum(report.loss for report in reports),
            grad_square_sum=sum(report.grad_square_sum for report in reports),
            nonfinite=sum(report.nonfinite for report in reports),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDecision:
    """What the scheduler tells every learner rank to do with its gradient, and the merged metrics it decided on.

    Example:
        StepDecision(decision=LrDecision(step=41, lr=5e-07, events=("decay",)), clip_scale=0.83, update=True,
                     metrics={"gradient/norm": 1.2})
    """

    decision: LrDecision
    clip_scale: float  # factor on the gradient, at most 1
    update: bool  # False: leave the weights alone (no data, or a non-finite gradient)
    metrics: dict[str, float]
