"""One FSDP2 rank: gradients of its shard, the optimiser update it is told to make, and the weights it publishes."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from actors.config import LearnerConfig
from actors.faults import Faults
from actors.losses import policy_gradient_loss, token_divisors
from actors.messages import FloatArray, GradientReport, LearnerShard, StepDecision, TrainSequence
from actors.perturbation import Perturbation
from actors.policy_model import PaddedBatch, PolicyModel
from actors.rendezvous import TIMEOUT, Rendezvous, join
from actors.statistics import MismatchSums

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSpec:
    """What a learner rank needs to know.

    Example:
        LearnerSpec(model="/models/qwen3", config=learner, rank=0, world_size=2, temperature=1.0,
                    max_response_tokens=64, wire_dtype="bfloat16", transfer="gloo", faults=Faults())
    """

    model: str  # folder or hub name
    config: LearnerConfig
    rank: int
    world_size: int
    temperature: float  # the sampler's
    max_response_tokens: int
    wire_dtype: str  # of the weights on their way to the rollout workers
    transfer: str  # vLLM's name of the weight-transfer backend
    faults: Faults


class Learner:
    """A rank of the training gang. All ranks get the same calls in the same order; most are collective."""

    def __init__(self, spec: LearnerSpec) -> None:
        self._spec = spec
        self._rendezvous: Rendezvous | None = None
        self._model: PolicyModel
        self._optimizer: torch.optim.Optimizer
        self._perturbation: Perturbation | None = None

    def open_rendezvous(self, host: str) -> str:
        """Open the gang's rendezvous at `host`, an address of this node (rank 0 only); returns its address."""
        self._rendezvous = Rendezvous.open(host)
        return self._rendezvous.address

    def start(self, address: str) -> None:
        """Join the gang at rank 0's rendezvous, load the model and shard it."""
        spec = self._spec
        if spec.config.device == "cuda":
            torch.cuda.set_device(0)  # Ray shows each rank its own GPU only
        else:
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        store = self._rendezvous.store(spec.world_size) if self._rendezvous else join(address, spec.world_size)
        backend = "nccl" if spec.config.device == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=spec.rank, world_size=spec.world_size, timeout=TIMEOUT)
        chunk_bytes = spec.config.logits_chunk_mib * MIB
        self._model = PolicyModel.load(spec.model, spec.temperature, chunk_bytes).to(self._device)
        mesh = dist.init_device_mesh(spec.config.device, (spec.world_size,))
        self._model.shard(mesh, getattr(torch, spec.config.dtype))
        self._optimizer = self._build_optimizer()

    @property
    def _device(self) -> torch.device:
        return torch.device(self._spec.config.device)

    def _build_optimizer(self) -> torch.optim.Optimizer:
        options = self._spec.config.optimizer
        # lr 0 until the first decision arrives: the learning rate is an argument of `apply`, never a state of ours.
        return torch.optim.AdamW(
            self._model.parameters(), lr=0.0, betas=options.betas, eps=options.eps, weight_decay=options.weight_decay
        )

    def compute_gradients(self, shard: LearnerShard) -> GradientReport:
        """Forward, loss and backward over this rank's micro-batches; the gradient stays here, sharded."""
        self._model.train()
        report = GradientReport.merge([self._backward(sequences, shard) for sequences in shard.microbatches])
        square_sum, nonfinite = self._gradient_sums()
        return replace(report, grad_square_sum=square_sum, nonfinite=nonfinite)

    def _backward(self, sequences: Sequence[TrainSequence], shard: LearnerShard) -> GradientReport:
        batch = PaddedBatch(sequences, self._device)
        scores = self._model(batch.input_ids, batch.positions, batch.targets)
        advantages = [sequence.advantage for sequence in sequences]
        divisors = token_divisors(
            self._spec.config.loss, batch.lengths, shard.num_tokens, shard.num_sequences, self._spec.max_response_tokens
        )
        loss = policy_gradient_loss(scores.logprobs, advantages, batch.lengths, divisors)
        # FSDP2 averages gradients over ranks; the divisors are those of the whole step, so ours must add up.
        (loss * self._spec.world_size).backward()
        return GradientReport(
            mismatch=_mismatch(scores.logprobs, sequences, batch.lengths),
            entropy_sum=float(scores.entropy.sum(dtype=torch.float64)),
            loss=float(loss.detach()),
            grad_square_sum=0.0,
            nonfinite=0,
        )

    def _gradient_sums(self) -> tuple[float, int]:
        square_sum, nonfinite = 0.0, 0
        for parameter in self._model.parameters():
            if parameter.grad is not None:
                local = _local(parameter.grad)
                square_sum += float(torch.linalg.vector_norm(local, dtype=torch.float64)) ** 2
                nonfinite += int(local.numel() - torch.isfinite(local).sum())
        return square_sum, nonfinite

    def apply(self, order: StepDecision) -> None:
        """Clip, set the decided learning rate and step; or leave the weights alone when the order says so."""
        if order.update:
            for parameter in self._model.parameters():
                if parameter.grad is not None and order.clip_scale < 1.0:
                    _local(parameter.grad).mul_(order.clip_scale)
            for group in self._optimizer.param_groups:
                group["lr"] = order.decision.lr
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def connect(self, host: str, rollout_workers: Sequence[Any]) -> None:
        """Open the weight transfer to the rollout workers' actors; rank 0 sends, and listens at its address `host`."""
        # vLLM takes seconds to import, and the driver, which ships this class, never needs it.
        from actors.weight_publisher import StateDictSource, WeightPublisher  # noqa: PLC0415

        spec = self._spec
        wire_dtype = getattr(torch, spec.wire_dtype)
        source = StateDictSource(self._model.exported_state, wire_dtype, keep=lambda name: not spec.faults.drops(name))
        self._publisher = WeightPublisher(spec.transfer, spec.rank, host, rollout_workers, source)

    def publish(self, version: int) -> None:
        """Send all weights to the rollout workers, who load them and drop their prefix cache. Errors as there."""
        self._publisher.publish(version)

    def perturb(self, seed: int) -> None:
        """Change every weight strongly, for the weight-sync self-test; `restore` takes it back bit for bit."""
        self._perturbation = Perturbation.apply(self._local_weights(), seed)

    def restore(self) -> None:
        """Take `perturb` back."""
        if self._perturbation is not None:
            self._perturbation.undo(self._local_weights())
            self._perturbation = None

    def tensor_names(self) -> list[str]:
        """Names of all tensors that a publication sends, faults left out of account."""
        return list(self._model.exported_state())

    def score(self, sequences: Sequence[TrainSequence], stale: Sequence[str] = ()) -> list[FloatArray]:
        """Log-probs of each sequence's response tokens. Collective; all ranks get the same sequences.

        Args:
            sequences: what to score.
            stale: names of tensors taken as they were before `perturb`.
        """
        batch = PaddedBatch(sequences, self._device)
        self._model.eval()
        head = self._tied_head(stale)
        with torch.no_grad(), self._undone(stale):
            logprobs = self._model(batch.input_ids, batch.positions, batch.targets, head).logprobs
            self._model.reshard()
        return [piece.numpy() for piece in logprobs.cpu().split(batch.lengths)]

    def _tied_head(self, stale: Sequence[str]) -> Tensor | None:
        """The output head of a tied model, where it is to be stale and the embedding not, or the other way round."""
        embedding, head = self._model.tied_names() or ("", "")
        if (embedding in stale) == (head in stale):
            return None
        with self._undone([embedding] if head in stale else []):
            return self._model.gathered_head()

    def _undone(self, names: Sequence[str]) -> AbstractContextManager[None]:
        return self._perturbation.undone(self._local_weights(), names) if self._perturbation else nullcontext()

    def _local_weights(self) -> dict[str, Tensor]:
        return {name: _local(parameter.data) for name, parameter in self._model.model.named_parameters()}


def _local(tensor: Tensor) -> Tensor:
    """The shard that this rank holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _mismatch(logprobs: Tensor, sequences: Sequence[TrainSequence], lengths: Sequence[int]) -> MismatchSums:
    if not sequences:
        return MismatchSums.empty()
    train = logprobs.detach().cpu().numpy()
    rollout = np.concatenate([sequence.rollout_logprobs for sequence in sequences])
    return MismatchSums.from_logprobs(train, rollout, np.asarray(lengths))
