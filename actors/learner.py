"""One FSDP2 rank: gradients of its shard, the optimiser update it is told to make, and the weights it publishes."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from actors.attention import implementation
from actors.compilation import compile_layers
from actors.config import LearnerConfig
from actors.faults import Faults
from actors.gradient_pass import GradientPass, local, square_sum
from actors.learner_state import LearnerState
from actors.messages import (
    FloatArray,
    GradientReport,
    LearnerShard,
    SavedFile,
    StepDecision,
    TokenRecord,
    TrainSequence,
    UpdateReport,
)
from actors.offload import OffloadedMoments
from actors.perturbation import Perturbation
from actors.policy_model import PaddedBatch, PolicyModel
from actors.process_group import join_group
from actors.quantization import QuantizationKind, rounded_through
from actors.rendezvous import Rendezvous, join

if TYPE_CHECKING:
    from actors.weight_publisher import WeightPublisher

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSpec:
    """What a learner rank needs to know.

    Example:
        LearnerSpec(model="/models/qwen3", config=learner, rank=0, world_size=2, temperature=1.0,
                    max_response_tokens=64, wire_dtype="bfloat16", quantize=None, transfer="gloo",
                    engine_processes=1, faults=Faults())
    """

    model: str  # folder or hub name
    config: LearnerConfig
    rank: int
    world_size: int
    temperature: float  # the sampler's
    max_response_tokens: int
    wire_dtype: str  # of the weights on their way to the rollout workers
    quantize: QuantizationKind | None  # what they are rounded through on that way
    transfer: str  # vLLM's name of the weight-transfer backend; ipc: it shares its GPU with a rollout worker
    engine_processes: int = 1  # of each rollout worker that take weights: the GPUs that its engine is split over
    faults: Faults


class Learner:
    """A rank of the training gang. All ranks get the same calls in the same order; most are collective."""

    def __init__(self, spec: LearnerSpec) -> None:
        self._spec = spec
        self._rendezvous: Rendezvous | None = None
        self._model: PolicyModel
        self._optimizer: torch.optim.Optimizer
        self._gradient_pass: GradientPass
        self._state: LearnerState
        self._moments: OffloadedMoments | None = None  # unless they stay where they are used
        self._publisher: WeightPublisher | None = None
        self._perturbation: Perturbation | None = None

    def open_rendezvous(self, host: str) -> str:
        """Open the gang's rendezvous at `host`, an address of this node (rank 0 only); returns its address."""
        self._rendezvous = Rendezvous.open(host)
        return self._rendezvous.address

    def start(self, address: str) -> None:
        """Join the gang at rank 0's rendezvous, load the model and shard it."""
        spec = self._spec
        config = spec.config
        store = self._rendezvous.store(spec.world_size) if self._rendezvous else join(address, spec.world_size)
        join_group(config, store, spec.rank, spec.world_size)
        dtype = getattr(torch, config.dtype)
        attention = implementation(config.attention, config.device, dtype)
        self._model = PolicyModel.load(spec.model, spec.temperature, config.logits_chunk_mib * MIB, attention)
        if config.activation_checkpointing:
            self._model.checkpoint_activations()
        if config.compile:
            compile_layers(self._model.layers, config.device)
        mesh = dist.init_device_mesh(config.device, (spec.world_size,))
        self._model.shard(mesh, dtype, offload=config.offload.parameters)
        self._optimizer = self._build_optimizer()
        if config.offload.optimizer and not config.offload.parameters:  # which takes the moments along
            self._moments = OffloadedMoments(self._optimizer, self._device)
        self._state = LearnerState(self._model, self._optimizer, spec.rank, spec.world_size)
        self._gradient_pass = GradientPass(self._model, config, spec.max_response_tokens, spec.world_size)
        self._give_memory_back()

    @property
    def _device(self) -> torch.device:
        return torch.device(self._spec.config.device)

    def _build_optimizer(self) -> torch.optim.Optimizer:
        options = self._spec.config.optimizer
        return torch.optim.AdamW(
            self._model.parameters(),
            lr=0.0,  # until the first decision arrives: it is an argument of `apply`, never a state of ours
            betas=options.betas,
            eps=options.eps,
            weight_decay=options.weight_decay,
            # The same arithmetic on all shards at once: on small ones PyTorch takes three times as long for one after
            # the other. It needs memory for one more copy of them, which offloading is there to spare.
            foreach=not self._spec.config.offload.parameters,
        )

    def compute_gradients(self, shard: LearnerShard) -> GradientReport:
        """Forward, loss and backward over this rank's micro-batches; the gradient stays here, sharded."""
        return self._gradient_pass.run(shard)

    def token_records(self) -> list[list[TokenRecord]]:
        """What was kept of the last shard's sequences, micro-batch by micro-batch; empty when it did not ask for it."""
        return self._gradient_pass.tokens

    def apply(self, order: StepDecision) -> UpdateReport:
        """Scale the gradient, set the decided learning rate and step; or leave the weights alone as the order says."""
        report = self._update(order) if order.update else UpdateReport()
        self._optimizer.zero_grad(set_to_none=True)
        self._give_memory_back()
        return report

    def _update(self, order: StepDecision) -> UpdateReport:
        for parameter in self._model.parameters():
            if parameter.grad is not None and order.grad_scale != 1.0:
                local(parameter.grad).mul_(order.grad_scale)
        for group in self._optimizer.param_groups:
            group["lr"] = order.decision.lr
        weights = list(self._local_weights().values())
        before = [weight.clone() for weight in weights]
        with self._moments.fetched() if self._moments else nullcontext():
            self._optimizer.step()
        return UpdateReport(
            weight_square_sum=square_sum(before),
            update_square_sum=square_sum(weight - old for weight, old in zip(weights, before, strict=True)),
        )

    def connect(self, host: str, rollout_workers: Sequence[Any]) -> None:
        """Open the weight transfer to the rollout workers' actors; rank 0 sends, and listens at its address `host`."""
        # vLLM takes seconds to import, and the driver, which ships this class, never needs it.
        from actors.state_dict_source import StateDictSource  # noqa: PLC0415
        from actors.weight_publisher import WeightPublisher  # noqa: PLC0415

        spec = self._spec
        if self._publisher is not None:
            self._publisher.close()
        self._publisher = None  # an earlier transfer ends first: receivers that wait on it would not join the new one
        wire_dtype = getattr(torch, spec.wire_dtype)
        source = StateDictSource(
            self._model.exported_state,
            wire_dtype,
            keep=lambda name: not spec.faults.drops(name),
            change=self._as_sent,
            device=self._device,
            tied=self._tied(),
        )
        self._publisher = WeightPublisher(
            spec.transfer, spec.rank, host, rollout_workers, source, spec.engine_processes
        )

    def _tied(self) -> dict[str, str]:
        """Under which other name a tied output head is sent, if it is the same after quantisation, too."""
        tied = None if self._spec.quantize else self._model.tied_names()
        return {tied[1]: tied[0]} if tied else {}

    def publish(self, version: int) -> None:
        """Send all weights to the rollout workers, who load them and drop their prefix cache. Errors as there."""
        assert self._publisher is not None, "connect comes first"
        if self._device.type == "cuda":  # NCCL's side reads the weights on streams of its own
            torch.cuda.synchronize()
        self._publisher.publish(version)
        self._give_memory_back()

    def export(self, folder: str, dtype: str) -> None:
        """Write the policy as a Hugging Face folder; rank 0 writes, on the machine it runs on. Collective."""
        # Only a run that exports needs the tokenizer's library.
        from actors.model_export import export  # noqa: PLC0415

        spec = self._spec
        export(self._model, spec.model, Path(folder), getattr(torch, dtype), writes=spec.rank == 0)

    def save(self, folder: str) -> None:
        """Begin to write what the next step depends on; returns when that may change again. Collective."""
        self._state.save(folder)

    def written(self, timeout_s: float) -> tuple[SavedFile, ...]:
        """Wait for the save begun last, also in another thread than the other calls'; the files this rank wrote.

        Raises:
            CheckpointNotWritten: a rank could not write, or it takes longer than `timeout_s`.
        """
        return self._state.written(timeout_s)

    def load(self, folder: str) -> None:
        """Become the learner that was saved, whatever this one has done since. Collective; errors as in the state's."""
        self._state.load(folder)
        if self._moments is not None:
            self._moments.put_away()
        self._perturbation = None
        self._give_memory_back()

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
        """Log-probs of each sequence's response tokens under the weights as they are sent, but for the cast.

        Collective; all ranks get the same sequences.

        Args:
            sequences: what to score.
            stale: names of tensors taken as they were before `perturb`.
        """
        batch = PaddedBatch(sequences, self._device)
        self._model.eval()
        head = self._tied_head(stale)
        with torch.no_grad(), self._undone(stale), self._rounded():
            logprobs = self._model(batch.input_ids, batch.positions, batch.targets, head).logprobs
            self._model.reshard()
        self._give_memory_back()
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

    @contextmanager
    def _rounded(self) -> Iterator[None]:
        """The weights rounded as on their way to the engines; rows are whole on every rank, so each does its own."""
        weights = self._local_weights() if self._spec.quantize else {}
        exact = {name: weight.clone() for name, weight in weights.items()}
        for name, weight in weights.items():
            weight.copy_(self._as_sent(name, weight))
        try:
            yield
        finally:
            for name, weight in weights.items():
                weight.copy_(exact[name])

    def _as_sent(self, name: str, weight: Tensor) -> Tensor:
        return rounded_through(self._spec.quantize, name, weight) if self._spec.quantize else weight

    def _local_weights(self) -> dict[str, Tensor]:
        return {name: local(parameter.data) for name, parameter in self._model.model.named_parameters()}

    def _give_memory_back(self) -> None:
        """Leave what is free to the rollout worker on the same GPU, if there is one."""
        if self._spec.transfer == "ipc":
            torch.cuda.empty_cache()
