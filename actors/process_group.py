"""The group that the ranks of a gang talk in, with the device that each of them computes on."""

import os

import torch
import torch.distributed as dist

from actors.config import LearnerConfig
from actors.rendezvous import TIMEOUT


def join_group(config: LearnerConfig, store: dist.Store, rank: int, world_size: int) -> None:
    """Choose this process's device and threads, and make the gang torch's default group. Collective.

    Args:
        config: says where a rank runs.
        store: where the ranks meet.
        rank: of this process.
        world_size: ranks of the gang.
    """
    if config.device == "cpu":
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=TIMEOUT)
        return
    if config.offload.parameters:  # the optimizer then runs on the CPU
        torch.set_num_threads(max(1, int(config.cpus_per_worker)))
    torch.cuda.set_device(0)  # Ray shows each rank its own GPU only
    dist.init_process_group(
        "cpu:gloo,cuda:nccl",  # gloo for offloaded weights, and for objects
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=TIMEOUT,
        device_id=torch.device("cuda", 0),
    )
