"""Weights on their way over gloo: few large messages instead of one for each tensor."""

import weakref
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

BUCKET_BYTES = 32 * 2**20
Bucket = list[ParamMeta]


class BucketSource(WeightSource):
    """A source of weights that can lay them into buckets by itself.

    for flat in source.packed(buckets(source.metadata(), BUCKET_BYTES)):
        send(flat)
    """

    @abstractmethod
    def further_names(self) -> dict[str, str]:
        """Names of tensors that are also sent under another name, and that name."""

    @abstractmethod
    def packed(self, packing: Sequence[Bucket]) -> Iterator[Tensor]:
        """Each bucket's tensors, one after the other [elements], on rank 0; elsewhere anything. Collective.

        The memory of one that nobody holds any more is used for another.
        """


def buckets(metadata: Sequence[ParamMeta], limit_bytes: int) -> list[Bucket]:
    """Consecutive tensors of one dtype packed into buckets of at most `limit_bytes` (a larger tensor is alone)."""
    packed: list[Bucket] = []
    room = 0
    for meta in metadata:
        size = num_bytes([meta])
        if not packed or size > room or meta.dtype != packed[-1][0].dtype:
            packed.append([])
            room = limit_bytes
        packed[-1].append(meta)
        room -= size
    return packed


def num_bytes(bucket: Sequence[ParamMeta]) -> int:
    """Of all tensors of a bucket."""
    return sum(prod(meta.shape) * meta.dtype.itemsize for meta in bucket)


def pieces(bucket: Bucket, memory: Tensor) -> list[Tensor]:
    """The tensors of a bucket, in their shapes, as views of the bytes that it lies in."""
    flat = memory[: num_bytes(bucket)].view(bucket[0].dtype)
    split = flat.split([prod(meta.shape) for meta in bucket])
    return [piece.view(meta.shape) for meta, piece in zip(bucket, split, strict=True)]


class LentMemory:
    """Bytes lent out as tensors, and lent again as soon as nobody holds any tensor that lies in them.

    Memory that is new takes as long as what is done with it: the kernel clears every page of it.

    memory = LentMemory(most=4096)
    flat = memory.lend(1000)
    kept = flat[10:20]  # the memory stays lent for as long as `kept` is there
    """

    def __init__(self, most: int) -> None:
        """Keep no piece of memory that is larger than `most` bytes."""
        self._most = most
        self._blocks: list[tuple[np.ndarray, weakref.ref[np.ndarray]]] = []

    def lend(self, size: int) -> Tensor:
        """A tensor [size] of bytes, of any content."""
        if size > self._most:
            return torch.empty(size, dtype=torch.uint8)
        # What is free but too small is given back.
        self._blocks = [(one, lent) for one, lent in self._blocks if lent() is not None or one.nbytes >= size]
        fits = (i for i, (one, lent) in enumerate(self._blocks) if lent() is None and one.nbytes >= size)
        number = next(fits, None)
        block = torch.empty(size, dtype=torch.uint8).numpy() if number is None else self._blocks.pop(number)[0]
        view = block[:size]  # held by the tensor's memory, whoever has a view of it
        self._blocks.append((block, weakref.ref(view)))
        return torch.from_numpy(view)
