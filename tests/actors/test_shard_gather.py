"""Rows of two real ranks, some of which have none, come together on the first."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from actors.shard_gather import gather_rows, is_split_by_rows

pytestmark = pytest.mark.slow
SHAPES = [(6, 7), (5, 7), (1, 3), (5,), (1,), (2, 2, 2)]


def tensors() -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def play(rank: int, store: Path) -> list[Tensor]:
    """Be one of two ranks; the first has all rows afterwards."""
    dist.init_process_group("gloo", store=dist.FileStore(str(store), 2), rank=rank, world_size=2)
    mesh = dist.init_device_mesh("cpu", (2,))
    split = [distribute_tensor(tensor, mesh, [Shard(0)]) for tensor in tensors()]
    assert all(map(is_split_by_rows, split))
    assert not is_split_by_rows(distribute_tensor(tensors()[0], mesh, [Replicate()]))
    full = [torch.zeros(tensor.shape, dtype=torch.bfloat16) for tensor in split]
    gather_rows([tensor.to_local() for tensor in split if isinstance(tensor, DTensor)], full, mesh)
    dist.destroy_process_group()
    return full


def test_rows_of_two_ranks_are_put_together_and_cast(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, __file__, str(tmp_path / "store")], cwd=Path(__file__).parents[2])
    gathered = play(0, tmp_path / "store")
    assert other.wait(60) == 0
    assert all(torch.equal(one, whole.bfloat16()) for one, whole in zip(gathered, tensors(), strict=True))


if __name__ == "__main__":
    play(1, Path(sys.argv[1]))
