"""Buckets keep order and limits; their memory is lent again when nobody holds it any more."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from vllm.distributed.weight_transfer.base import ParamMeta

from actors.weight_buckets import LentMemory, buckets, num_bytes, pieces

pytestmark = pytest.mark.slow

dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
metas = st.lists(
    st.builds(ParamMeta, st.text(max_size=5), dtypes, st.lists(st.integers(0, 5), max_size=3).map(tuple)), max_size=12
)


def meta(num_bytes: int, dtype: torch.dtype = torch.float32) -> ParamMeta:
    return ParamMeta(f"{num_bytes} bytes", dtype, (num_bytes // dtype.itemsize,))


def size_of(one: ParamMeta) -> int:
    return torch.Size(one.shape).numel() * one.dtype.itemsize


@given(metas, st.integers(1, 200))
def test_buckets_keep_every_tensor_in_order_within_one_dtype_and_the_limit(
    metadata: list[ParamMeta], limit: int
) -> None:
    packed = buckets(metadata, limit)
    assert [one for bucket in packed for one in bucket] == metadata
    for bucket in packed:
        assert len({one.dtype for one in bucket}) == 1
        assert sum(map(size_of, bucket)) <= limit or len([one for one in bucket if size_of(one)]) == 1


def test_a_bucket_is_filled_up_to_its_limit() -> None:
    metadata = [meta(40), meta(60), meta(4), meta(96)]
    assert buckets(metadata, 100) == [metadata[:2], metadata[2:]]
    assert buckets(metadata, 99) == [metadata[:1], metadata[1:3], metadata[3:]]


def test_another_dtype_opens_another_bucket() -> None:
    metadata = [meta(8), meta(8, torch.bfloat16), meta(8, torch.bfloat16), meta(8)]
    assert buckets(metadata, 100) == [metadata[:1], metadata[1:3], metadata[3:]]


def test_a_tensor_larger_than_the_limit_is_alone() -> None:
    metadata = [meta(40), meta(400), meta(40), meta(40)]
    assert buckets(metadata, 100) == [metadata[:1], metadata[1:2], metadata[2:]]


@given(metas)
def test_pieces_of_a_bucket_are_its_tensors_one_after_the_other(metadata: list[ParamMeta]) -> None:
    for bucket in buckets(metadata, 200):
        memory = torch.arange(num_bytes(bucket) + 3, dtype=torch.int64).to(torch.uint8)
        found = pieces(bucket, memory)
        assert [(piece.dtype, tuple(piece.shape)) for piece in found] == [(one.dtype, one.shape) for one in bucket]
        again = torch.cat([piece.reshape(-1).view(torch.uint8) for piece in found])
        assert torch.equal(again, memory[: num_bytes(bucket)])


def place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_memory_that_a_view_is_left_of_is_not_lent_again() -> None:
    memory = LentMemory(most=1000)
    flat = memory.lend(100)
    kept = flat.view(torch.float32)[5:7].view(2, 1)
    first = place(flat)
    del flat
    other = memory.lend(100)
    assert place(other) != first
    del kept
    assert place(memory.lend(80)) == first


def test_memory_too_small_is_given_back_and_more_than_the_most_is_not_kept() -> None:
    memory = LentMemory(most=1000)
    for size in (100, 300, 1000, 1000, 5000):
        assert memory.lend(size).shape == (size,)
    assert [block.nbytes for block, _ in memory._blocks] == [1000]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), max_size=40))
def test_tensors_that_are_held_never_overlap(turns: list[tuple[int, int]]) -> None:
    memory = LentMemory(most=32)
    held: dict[int, Tensor] = {}
    for number, (size, slot) in enumerate(turns):
        held.pop(slot, None)
        held[slot] = memory.lend(size).fill_(number)
        assert held[slot].shape == (size,)
    last = {slot: number for number, (_, slot) in enumerate(turns)}
    assert all(bool((tensor == last[slot]).all()) for slot, tensor in held.items())
