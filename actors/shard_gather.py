"""Shards of many tensors brought to rank 0 in one message from each other rank."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard


def is_split_by_rows(tensor: Tensor) -> bool:
    """Whether each rank has some of its rows, as FSDP2 shards."""
    return isinstance(tensor, DTensor) and tensor.device_mesh.ndim == 1 and tensor.placements == (Shard(0),)


def gather_rows(shards: Sequence[Tensor], full: Sequence[Tensor], mesh: DeviceMesh) -> None:
    """Fill `full` on rank 0 with the rows of all ranks, cast to its dtype. Collective.

    A message has a place for the most rows of each tensor that a rank can have, which is what the first has; so all
    messages are of one length, as gloo wants them, whatever the number of rows.

    Example:
        5 rows on 2 ranks: 3 of the first, 2 of the second, whose place for the third stays as it is.

    Args:
        shards: this rank's rows [r, ...] of each tensor.
        full: each whole tensor [R, ...], contiguous and all of one dtype; on other ranks only shape and dtype count.
        mesh: of the ranks, in one dimension.
    """
    ranks, rank = mesh.size(), mesh.get_local_rank()
    if ranks == 1:
        for shard, tensor in zip(shards, full, strict=True):
            tensor.copy_(shard)
        return
    rows = [-(-len(tensor) // ranks) for tensor in full]
    sizes = [most * tensor[:1].numel() for most, tensor in zip(rows, full, strict=True)]
    message = torch.empty(sum(sizes), dtype=full[0].dtype)
    for place, shard in zip(message.split(sizes), shards, strict=True):
        place[: shard.numel()].copy_(shard.reshape(-1))
    received = [message, *(torch.empty_like(message) for _ in range(1, ranks))] if rank == 0 else None
    as_bytes = [one.view(torch.uint8) for one in received] if received else None  # gloo knows no bfloat16
    dist.gather(message.view(torch.uint8), as_bytes, group=mesh.get_group(), group_dst=0)
    for sender, one in enumerate(received or ()):
        for tensor, most, place in zip(full, rows, one.split(sizes), strict=True):
            part = tensor[sender * most : (sender + 1) * most].view(-1)
            part.copy_(place[: part.numel()])
