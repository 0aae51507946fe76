"""The learners' end of weight transfer: which tensors are sent, by which backend, to which rollout workers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.base import ParamMeta, TrainerInitInfo, WeightSource
from vllm.distributed.weight_transfer.clients import RayVLLMWeightSyncClient
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
from vllm.utils.network_utils import get_open_port

from actors.gloo_transfer import GlooTrainerInitInfo
from actors.rollout_worker import IncompleteUpdate, PrefixCacheKept

Change = Callable[[str, torch.Tensor], torch.Tensor]


def as_it_is(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself."""
    return tensor


class StateDictSource(WeightSource):
    """All tensors of a sharded model's state dict, gathered one by one, made ready for the rollout workers and cast.

    A state dict, not `named_parameters()`: that leaves out a tied output head, and the engine's own copy of the head
    would keep its old values.
    """

    def __init__(
        self,
        state_dict: Callable[[], dict[str, torch.Tensor]],
        dtype: torch.dtype,
        keep: Callable[[str], bool],
        change: Change = as_it_is,
    ) -> None:
        """Define the source.

        Args:
            state_dict: of the model as it is at the moment.
            dtype: of the tensors that are sent.
            keep: whether the tensor of a name is sent at all.
            change: what is made of a tensor before it is cast, by name.
        """
        self._state_dict = state_dict
        self._dtype = dtype
        self._keep = keep
        self._change = change

    def metadata(self) -> list[ParamMeta]:
        """Name, wire dtype and full shape of every tensor, without gathering any."""
        return [ParamMeta(name, self._dtype, tuple(tensor.shape)) for name, tensor in self._kept()]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in self._kept():
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            yield name, self._change(name, full).to(self._dtype)

    def _kept(self) -> Iterator[tuple[str, torch.Tensor]]:
        return ((name, tensor) for name, tensor in self._state_dict().items() if self._keep(name))


class VersionedClient(RayVLLMWeightSyncClient):
    """vLLM's Ray client that stamps every finished update with the weight version set beforehand."""

    version = 0

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Finish the update on all rollout workers and tell them its version."""
        super().finish_weight_update(weight_version or str(self.version))


class WeightPublisher:
    """On every learner rank; rank 0 sends, the others take part in the gathering.

    publisher = WeightPublisher("gloo", rank, host, rollout_workers, source)
    publisher.publish(version=1)
    """

    def __init__(
        self, backend: str, rank: int, host: str, rollout_workers: Sequence[Any], source: WeightSource
    ) -> None:
        """Open the transfer; on rank 0 this returns when all rollout workers have joined.

        Args:
            backend: `gloo`, `nccl` or `ipc`.
            rank: of this learner.
            host: address of rank 0's node, where it listens.
            rollout_workers: Ray handles of the rollout workers' actors.
            source: the tensors.
        """
        self._client = VersionedClient(list(rollout_workers))
        info = trainer_init_info(backend, rank, host, world_size=1 + len(rollout_workers))
        self._transfer = WeightTransferTrainerFactory.trainer_init(info, client=self._client, source=source)

    def publish(self, version: int) -> None:
        """Send all tensors; on return they are in force at every rollout worker. Collective.

        Raises:
            IncompleteUpdate: a rollout worker missed parts of a layer.
        """
        self._client.version = version
        try:
            self._transfer.send_weights()
        except (IncompleteUpdate, PrefixCacheKept) as error:  # raised by a rollout worker, and wrapped by Ray since
            raise getattr(error, "cause", error) from None


def trainer_init_info(backend: str, rank: int, host: str, world_size: int) -> TrainerInitInfo:
    """What learner rank `rank` needs to open the transfer.

    Args:
        backend: `gloo`, `nccl` or `ipc`.
        rank: of the learner; rank 0 is the sender.
        host: address of the sender's node.
        world_size: the sender and all receiving engine processes.
    """
    match backend:
        case "gloo":
            return GlooTrainerInitInfo(host=host, world_size=world_size, rank=rank)
        case "nccl":
            return NCCLTrainerInitInfo(
                master_address=host, master_port=get_open_port(), world_size=world_size, rank=rank
            )
        case "ipc":
            return IPCTrainerInitInfo(packed=True, rank=rank)
        case _:
            raise ValueError(f"{backend!r}: expected gloo, nccl or ipc")
