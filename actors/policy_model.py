"""The trained model: loading, sharding with FSDP2, and scoring response tokens in one forward pass."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from actors.attention import Implementation
from actors.messages import TrainSequence
from actors.token_scores import Foresight, TokenScores, score_tokens

SMALLEST_UNIT = 2**18  # weights; gathering fewer by themselves takes longer than to hold on to 1 MiB


class UnsupportedModel(ValueError):
    """The model cannot be trained as it was asked for: its output head is more than a matrix, say."""


class PolicyModel(nn.Module):
    """A causal language model whose forward pass scores the response tokens of a micro-batch.

    Scoring happens inside `forward`, because FSDP2 gathers the output head's weight only for as long as that runs.
    """

    def __init__(self, model: PreTrainedModel, temperature: float, chunk_bytes: int) -> None:
        super().__init__()
        head = model.get_output_embeddings()
        capped = getattr(model.config, "final_logit_softcapping", None)
        if getattr(head, "bias", None) is not None or capped:
            raise UnsupportedModel(f"{type(model).__name__}: an output head with a bias or a soft cap is not supported")
        self.model = model
        self.device = torch.device("cpu")  # where it computes; offloaded weights are elsewhere
        self.temperature = temperature
        self.chunk_tokens = max(1, chunk_bytes // (4 * head.weight.shape[0]))

    @classmethod
    def load(cls, path: str, temperature: float, chunk_bytes: int, attention: Implementation = "sdpa") -> "PolicyModel":
        """Load from a folder or hub name into host memory, in float32 whatever the file holds.

        Raises:
            UnsupportedModel: the model has no such attention, or another kind of output head.
        """
        try:
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation=attention)
        except (ValueError, ImportError) as error:
            if attention == "sdpa" or "attention" not in str(error).lower():
                raise
            raise UnsupportedModel(f"{path}: {attention}: {str(error).partition(chr(10))[0]}") from error
        return cls(model, temperature, chunk_bytes)

    @property
    def layers(self) -> Iterable[nn.Module]:
        """Of the decoder, from the first on."""
        layers: Iterable[nn.Module] = self.model.get_decoder().layers
        return layers

    def checkpoint_activations(self) -> None:
        """Keep a decoder layer's input only, and compute the rest of its activations once more in backward.

        Raises:
            UnsupportedModel: the model's class cannot.
        """
        if not self.model.supports_gradient_checkpointing:
            raise UnsupportedModel(f"{type(self.model).__name__}: activation checkpointing is not supported")
        self.model.gradient_checkpointing_enable({"use_reentrant": False})

    def shard(self, mesh: DeviceMesh, compute_dtype: torch.dtype, *, offload: bool = False) -> None:
        """Move to the mesh's device layer by layer, sharding each decoder layer, then the rest, over the mesh.

        Small layers are gathered and reduced with the rest. Weights, the gradient and its reduction over ranks are in
        float32.

        Args:
            mesh: of all ranks.
            compute_dtype: of the forward and backward pass.
            offload: keep the shards of weights and gradient in host memory.
        """
        precision = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
        on_gpu = mesh.device_type == "cuda"
        kept = CPUOffloadPolicy(pin_memory=on_gpu) if offload else OffloadPolicy()
        for layer in self.layers:
            if sum(weight.numel() for weight in layer.parameters()) >= SMALLEST_UNIT:
                fully_shard(layer, mesh=mesh, mp_policy=precision, offload_policy=kept)
        fully_shard(self, mesh=mesh, mp_policy=precision, offload_policy=kept)
        self.device = torch.device(mesh.device_type)

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        targets: Tensor,
        head: Tensor | None = None,
        foresight: Foresight | None = None,
    ) -> TokenScores:
        """Scores of `targets` [n], each predicted at the flat position [n] of `input_ids` [B, L].

        Padding stands on the right, where causal attention keeps it from every real token, so no mask is needed.
        `head` [V, H] stands in for the model's own output head; `foresight` is that of `score_tokens`.
        """
        decoder = self.model.get_decoder()
        hidden = decoder(input_ids=input_ids, use_cache=False).last_hidden_state
        if head is None:
            head = self.model.get_output_embeddings().weight
        chosen = hidden.flatten(0, 1)[positions]
        return score_tokens(chosen, head, targets, self.temperature, self.chunk_tokens, foresight)

    def reshard(self) -> None:
        """Give the root's gathered weights back; a forward pass without a backward one leaves them gathered."""
        if isinstance(self, FSDPModule):
            FSDPModule.reshard(self)

    def exported_state(self) -> dict[str, Tensor]:
        """The state dict under the names of the Hugging Face checkpoint, tied tensors under each of their names."""
        return dict(self.model.state_dict())

    def tied_names(self) -> tuple[str, str] | None:
        """Names of the embedding and the output head when they are one tensor."""
        embedding, head = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        if embedding.weight is not head.weight:
            return None
        names = {module: name for name, module in self.model.named_modules()}
        return f"{names[embedding]}.weight", f"{names[head]}.weight"

    def gathered_head(self) -> Tensor:
        """A full copy [V, H] of the output head as it is now. Collective."""
        return whole(self.model.get_output_embeddings().weight.detach(), self.device).clone()


def whole(tensor: Tensor, device: torch.device | None = None) -> Tensor:
    """A tensor that may be sharded, gathered where it is or on `device`. Collective."""
    here = tensor if device is None else tensor.to(device)
    return here.full_tensor() if isinstance(here, DTensor) else here


class PaddedBatch:
    """A micro-batch as tensors: right-padded tokens, and where each response token is predicted.

    Example: prompt (5, 6), response (7, 2), padded to length 4: input_ids [[5, 6, 7, 2]], positions [1, 2],
    targets [7, 2].
    """

    def __init__(self, sequences: Sequence[TrainSequence], device: torch.device) -> None:
        tokens = [[*sequence.prompt_ids.tolist(), *sequence.response_ids.tolist()] for sequence in sequences]
        width = max((len(row) for row in tokens), default=1)
        padded = torch.zeros(max(1, len(tokens)), width, dtype=torch.long)  # an empty micro-batch: one token, unscored
        positions: list[int] = []
        for i, (row, sequence) in enumerate(zip(tokens, sequences, strict=True)):
            padded[i, : len(row)] = torch.tensor(row)
            first = i * width + len(sequence.prompt_ids) - 1
            positions += range(first, first + len(sequence.response_ids))
        targets = [token for sequence in sequences for token in sequence.response_ids.tolist()]
        self.input_ids = padded.to(device)  # [B, L]
        self.positions = torch.tensor(positions, dtype=torch.long, device=device)  # [n]
        self.targets = torch.tensor(targets, dtype=torch.long, device=device)  # [n]
        self.lengths = [len(sequence.response_ids) for sequence in sequences]  # [B], sum n
