"""One rank's forward and backward pass over its part of a step, and what it measures on the way."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.tensor import DTensor

from actors.config import LearnerConfig
from actors.corrections import CorrectionSums
from actors.gradient_noise import HalfSums
from actors.logprob_pairs import NonFiniteLogprob
from actors.losses import ClipRange, policy_gradient_loss, token_divisors
from actors.messages import GradientReport, LearnerShard, TokenRecord, TrainSequence
from actors.policy_model import PaddedBatch, PolicyModel
from actors.statistics import MismatchSums
from actors.token_baseline import optimal_token_baseline, score_norms
from actors.token_scores import Foresight

Floats = NDArray[np.float64]
Advantages = list[Floats]  # one array [T_i] a sequence
# A token's share of a float16 gradient is held near 2**-6: rare tokens' shares then stay above the smallest float16,
# and the sum over a micro-batch below the largest.
FLOAT16_HEADROOM = 6


class GradientPass:
    """Fills the gradients of a model, sharded or not, and reports their sufficient statistics.

    report = GradientPass(model, config, max_response_tokens=64, world_size=2).run(shard)
    """

    def __init__(self, model: PolicyModel, config: LearnerConfig, max_response_tokens: int, world_size: int) -> None:
        """Define the pass.

        Args:
            model: its gradients are added to, not set.
            config: advantage, loss, correction.
            max_response_tokens: the sampler's limit.
            world_size: ranks that share the step; FSDP2 averages gradients over them.
        """
        self._model = model
        self._config = config
        self._max_response_tokens = max_response_tokens
        self._world_size = world_size
        self._clip = ClipRange(config.clip_ratio_low, config.clip_ratio_high)
        self.tokens: list[list[TokenRecord]] = []  # of the last pass's micro-batches, when its shard asked for them

    def run(self, shard: LearnerShard) -> GradientReport:
        """Forward, loss and backward of all micro-batches, half 1 before half 2 where there are halves. Collective."""
        self._model.train()
        self.tokens = []
        advantages = self._advantages(shard)
        reports: list[GradientReport] = []
        first_half: list[Tensor] = []
        halves = HalfSums()
        for microbatch, values in zip(shard.microbatches, advantages, strict=True):
            reports.append(self._backward(microbatch, values, shard))
            if len(reports) == shard.num_first_half:
                first_half = [gradient.clone() for gradient in self._gradients()]
                counts = CorrectionSums().merge(*(report.correction for report in reports))
                halves = HalfSums(first_tokens=counts.tokens_counted, first_sequences=counts.sequences_kept)
        if (scale := self._loss_scale(shard)) != 1:
            for gradient in (*first_half, *self._gradients()):
                gradient.mul_(1 / scale)
        if first_half:
            halves = _with_products(halves, first_half, self._gradients())
        return replace(
            GradientReport().merge(*reports),
            halves=halves,
            grad_square_sum=square_sum(self._gradients()),
            nonfinite=self._nonfinite(),
        )

    def _backward(
        self, sequences: Sequence[TrainSequence], advantages: Advantages, shard: LearnerShard
    ) -> GradientReport:
        batch = PaddedBatch(sequences, self._model.device)
        divisors = self._divisors(batch.lengths, shard)
        rollout = _joined([sequence.rollout_logprobs for sequence in sequences], np.float32)
        foresight = self._foresight(rollout, advantages, divisors, shard)
        scores = self._model(batch.input_ids, batch.positions, batch.targets, foresight=foresight)
        train = scores.logprobs.detach().cpu().numpy()
        mismatch = _mismatch(train, rollout, sequences)
        if shard.keep_tokens:
            pieces = np.split(train, np.cumsum(batch.lengths)[:-1]) if sequences else []
            records = zip(pieces, advantages, strict=True)
            self.tokens.append([TokenRecord(train_logprobs=piece, advantages=values) for piece, values in records])
        weighed = self._config.correction.weigh(train, rollout, batch.lengths)
        loss = self._loss(scores.logprobs, advantages, weighed.weights / divisors)
        # FSDP2 averages gradients over ranks; the divisors are those of the whole step, so ours must add up.
        (loss * (self._world_size * self._loss_scale(shard))).backward()
        return GradientReport(
            mismatch=mismatch,
            correction=CorrectionSums.of(weighed, batch.lengths),
            entropy_sum=float(scores.entropy.sum(dtype=torch.float64)),
            loss=float(loss.detach()),
        )

    def _divisors(self, lengths: list[int], shard: LearnerShard) -> Floats:
        """[tokens] what each token's share of the loss is divided by."""
        of_sequences = token_divisors(
            self._config.loss, lengths, shard.num_tokens, shard.num_sequences, self._max_response_tokens
        )
        return np.repeat(of_sequences, lengths)

    def _loss(self, logprobs: Tensor, advantages: Advantages, weights: Floats) -> Tensor:
        return policy_gradient_loss(
            logprobs, logprobs.detach(), _like(logprobs, _joined(advantages)), _like(logprobs, weights), self._clip
        )

    def _foresight(
        self, rollout: NDArray[np.float32], advantages: Advantages, divisors: Floats, shard: LearnerShard
    ) -> Foresight | None:
        """The gradient of each log-prob, unless a correction weighs it by those of its whole sequence."""
        correction = self._config.correction
        if not correction.by_token:
            return None
        unweighted = -self._world_size * self._loss_scale(shard) * _joined(advantages) / divisors

        def foresight(logprobs: Tensor, place: slice) -> Tensor:
            values = unweighted[place]
            if correction.kind != "none":  # which needs no copy from a GPU
                train = logprobs.cpu().numpy()
                values = values * correction.weigh(train, rollout[place], [train.size]).weights
            return _like(logprobs, values)

        return foresight

    def _loss_scale(self, shard: LearnerShard) -> float:
        """A power of two that the loss is multiplied by, and the gradient divided by afterwards: 1 but in float16.

        A step's many tokens each have a small share of the gradient, which float16 would round to 0.
        """
        if self._config.dtype != "float16":
            return 1.0
        constant = shard.num_sequences * self._max_response_tokens
        divisor = constant if self._config.loss == "constant" else shard.num_tokens
        return float(2 ** max(0, divisor.bit_length() - 1 - FLOAT16_HEADROOM))

    def _advantages(self, shard: LearnerShard) -> list[Advantages]:
        """The advantage of every token of every micro-batch's sequences."""
        if self._config.advantage == "optimal_token_baseline":
            return self._above_token_baseline(shard)
        return [
            [np.full(len(sequence.response_ids), sequence.advantage) for sequence in microbatch]
            for microbatch in shard.microbatches
        ]

    def _above_token_baseline(self, shard: LearnerShard) -> list[Advantages]:
        """Reward minus the optimal token baseline, which compares a prompt's responses as the policy sees them now.

        It is not known before the last response of a prompt has been scored: the one case that costs a forward pass
        more. All responses to a prompt are in this shard.
        """
        with torch.no_grad():
            norms = [self._score_norms(microbatch) for microbatch in shard.microbatches]
        self._model.reshard()
        members: dict[int, list[tuple[int, int]]] = {}  # where each prompt's responses are
        for i, microbatch in enumerate(shard.microbatches):
            for j, sequence in enumerate(microbatch):
                members.setdefault(sequence.group, []).append((i, j))
        advantages: list[Advantages] = [[np.empty(0)] * len(microbatch) for microbatch in shard.microbatches]
        for places in members.values():
            rewards = [shard.microbatches[i][j].advantage for i, j in places]
            baselines = optimal_token_baseline(rewards, [norms[i][j] for i, j in places])
            for (i, j), reward, baseline in zip(places, rewards, baselines, strict=True):
                advantages[i][j] = reward - baseline
        return advantages

    def _score_norms(self, sequences: Sequence[TrainSequence]) -> list[Floats]:
        batch = PaddedBatch(sequences, self._model.device)
        scores = self._model(batch.input_ids, batch.positions, batch.targets)
        norms = score_norms(scores.logprobs.cpu().numpy(), scores.square_sum.cpu().numpy())
        return np.split(norms, np.cumsum(batch.lengths)[:-1]) if sequences else []

    def _gradients(self) -> Iterator[Tensor]:
        """The gradient of every parameter, the shard of it that this rank holds."""
        for parameter in self._model.parameters():
            if parameter.grad is not None:
                yield local(parameter.grad)

    def _nonfinite(self) -> int:
        return sum(int(gradient.numel() - torch.isfinite(gradient).sum()) for gradient in self._gradients())


def _mismatch(train: Floats, rollout: Floats, sequences: Sequence[TrainSequence]) -> MismatchSums:
    try:
        return MismatchSums.from_logprobs(train, rollout, [len(sequence.response_ids) for sequence in sequences])
    except NonFiniteLogprob as error:
        one = sequences[error.sequence]
        name = f"response {one.sample} to prompt {one.group} of the step"
        raise NonFiniteLogprob(error.sequence, error.token, error.column, error.value, name) from None


def local(tensor: Tensor) -> Tensor:
    """The shard that this rank holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def square_sum(tensors: Iterable[Tensor]) -> float:
    """Sum of the squares of all elements, in float64."""
    return sum((float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2 for tensor in tensors), 0.0)


def _with_products(halves: HalfSums, first_half: list[Tensor], whole: Iterator[Tensor]) -> HalfSums:
    """`halves` with the products of G1 and G2 = G - G1; uses up the copy of G1."""
    first_square, second_square, product = 0.0, 0.0, 0.0
    for gradient in whole:
        first = first_half.pop(0).flatten().double()
        second = gradient.flatten().double() - first
        first_square += float(first.dot(first))
        second_square += float(second.dot(second))
        product += float(first.dot(second))
    return replace(halves, first_square=first_square, second_square=second_square, product=product)


def _joined(pieces: Sequence[NDArray[Any]], dtype: type = np.float64) -> NDArray[Any]:
    return np.concatenate(pieces) if pieces else np.empty(0, dtype)


def _like(tensor: Tensor, values: Floats) -> Tensor:
    return torch.from_numpy(values).to(tensor.device, tensor.dtype)
