"""A sharded model's state dict as a source of weights: one tensor after the other, or many in a bucket."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from vllm.distributed.weight_transfer.base import ParamMeta

from actors.policy_model import whole
from actors.shard_gather import gather_rows, is_split_by_rows
from actors.weight_buckets import BUCKET_BYTES, Bucket, BucketSource, LentMemory, num_bytes, pieces

Change = Callable[[str, Tensor], Tensor]


def as_it_is(name: str, tensor: Tensor) -> Tensor:
    """The tensor itself."""
    return tensor


class StateDictSource(BucketSource):
    """All tensors of a sharded model's state dict, gathered, made ready for the rollout workers and cast.

    A state dict, not `named_parameters()`: that leaves out a tied output head, and the engine's own copy of the head
    would keep its old values.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - all that decides what is sent
        self,
        state_dict: Callable[[], dict[str, Tensor]],
        dtype: torch.dtype,
        keep: Callable[[str], bool],
        change: Change = as_it_is,
        device: torch.device | None = None,
        tied: Mapping[str, str] | None = None,
    ) -> None:
        """Define the source.

        Args:
            state_dict: of the model as it is at the moment.
            dtype: of the tensors that are sent.
            keep: whether the tensor of a name is sent at all.
            change: what is made of a tensor before it is cast, by name; of each row by itself, so that it can be done
                where the row is.
            device: where tensors are gathered and sent from, whatever memory they are in; None: where they are.
            tied: names of tensors that are those of another name, and that name; `change` does the same to both.
        """
        self._state_dict = state_dict
        self._dtype = dtype
        self._keep = keep
        self._change = change
        self._device = device
        self._tied = tied or {}
        self._memory = LentMemory(BUCKET_BYTES)

    def metadata(self) -> list[ParamMeta]:
        """Name, wire dtype and full shape of every tensor, without gathering any."""
        return [ParamMeta(name, self._dtype, tuple(tensor.shape)) for name, tensor in self._kept()]

    def further_names(self) -> dict[str, str]:
        """Those of the tied tensors."""
        return {name: other for name, other in self._tied.items() if self._keep(name) and self._keep(other)}

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._kept():
            yield name, self._change(name, whole(tensor, self._device)).to(self._dtype)

    def packed(self, packing: Sequence[Bucket]) -> Iterator[Tensor]:
        """The buckets one after the other, each gathered by one collective."""
        tensors = dict(self._kept())
        for bucket in packing:
            flat = self._memory.lend(num_bytes(bucket))
            self._fill(bucket, tensors, pieces(bucket, flat))
            yield flat

    def _fill(self, bucket: Bucket, tensors: Mapping[str, Tensor], into: Sequence[Tensor]) -> None:
        split: list[tuple[Tensor, Tensor]] = []
        mesh = None
        for meta, piece in zip(bucket, into, strict=True):
            tensor = tensors[meta.name]
            if is_split_by_rows(tensor):
                assert isinstance(tensor, DTensor)
                mesh = tensor.device_mesh
                split.append((self._change(meta.name, tensor.to_local()), piece))
            else:
                piece.copy_(self._change(meta.name, whole(tensor, self._device)))
        if mesh is not None:
            gather_rows([shard for shard, _ in split], [piece for _, piece in split], mesh)

    def _kept(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, tensor) for name, tensor in self._state_dict().items() if self._keep(name))
