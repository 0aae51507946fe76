"""The learners' end of weight transfer: which tensors are sent, by which backend, to which rollout workers."""

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future
from concurrent.futures import wait as wait_for
from math import prod
from typing import Any

from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.base import TrainerInitInfo, WeightSource, WeightTransferUpdateRequest
from vllm.distributed.weight_transfer.clients import RayVLLMWeightSyncClient
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
from vllm.utils.network_utils import get_open_port

from actors.gloo_transfer import GlooTrainerInitInfo, InForce
from actors.rollout_worker import IncompleteUpdate, PrefixCacheKept

CHUNK_BYTES = 256 * 2**20  # vLLM's own 1 GiB is a lot beside an engine that fills the GPU


class VersionedClient(RayVLLMWeightSyncClient):
    """vLLM's Ray client that stamps every finished update with the weight version set beforehand."""

    version = 0

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Finish the update on all rollout workers and tell them its version."""
        super().finish_weight_update(weight_version or str(self.version))

    def begin_update(self, update_info: dict[str, Any]) -> InForce:
        """Have all rollout workers take a whole update in one call, which is less than five one after the other.

        Returns:
            What waits until it is in force at all of them, and raises what any of them has raised.
        """
        request = WeightTransferUpdateRequest(update_info=update_info)
        taking: list[Future[None]] = [
            handle.take_weight_update.remote(request, str(self.version)).future() for handle in self.handles
        ]

        def in_force(within_s: float | None) -> None:
            # one that failed may leave others waiting for it
            done, waiting = wait_for(taking, within_s, return_when=FIRST_EXCEPTION)
            for answer in done:
                answer.result()
            if waiting:
                raise TimeoutError

        return in_force


class WeightPublisher:
    """On every learner rank; rank 0 sends, the others take part in the gathering.

    publisher = WeightPublisher("gloo", rank, host, rollout_workers, source)
    publisher.publish(version=1)
    publisher.close()
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each part
        self,
        backend: str,
        rank: int,
        host: str,
        rollout_workers: Sequence[Any],
        source: WeightSource,
        engine_processes: int = 1,
    ) -> None:
        """Open the transfer; on rank 0 this returns when all rollout workers have joined.

        Args:
            backend: `gloo`, `nccl` or `ipc`.
            rank: of this learner.
            host: address of rank 0's node, where it listens.
            rollout_workers: Ray handles of the rollout workers' actors.
            source: the tensors.
            engine_processes: that receive, of each rollout worker: as many as GPUs that it is split over.
        """
        self._client = VersionedClient(list(rollout_workers))
        receivers = len(rollout_workers) * engine_processes
        info = trainer_init_info(backend, rank, host, world_size=1 + receivers, chunk_bytes=chunk_bytes(source))
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

    def close(self) -> None:
        """Leave the transfer; NCCL's buffers are then free."""
        self._transfer.shutdown()


def chunk_bytes(source: WeightSource) -> int:
    """Size of the buffer that tensors are packed in on a GPU: the largest of them must fit."""
    sizes = [prod(meta.shape) * meta.dtype.itemsize for meta in source.metadata()]
    return max([CHUNK_BYTES, *sizes])


def trainer_init_info(
    backend: str, rank: int, host: str, world_size: int, chunk_bytes: int = CHUNK_BYTES
) -> TrainerInitInfo:
    """What learner rank `rank` needs to open the transfer.

    Args:
        backend: `gloo`, `nccl` or `ipc`.
        rank: of the learner; rank 0 is the sender.
        host: address of the sender's node.
        world_size: the sender and all receiving engine processes.
        chunk_bytes: tensors that travel together over nccl or ipc.
    """
    match backend:
        case "gloo":
            return GlooTrainerInitInfo(host=host, world_size=world_size, rank=rank)
        case "nccl":
            return NCCLTrainerInitInfo(
                master_address=host,
                master_port=get_open_port(),  # of this node: only that of rank 0 is used
                world_size=world_size,
                packed_buffer_size_bytes=chunk_bytes,
                rank=rank,
            )
        case "ipc":
            return IPCTrainerInitInfo(packed=True, packed_buffer_size_bytes=chunk_bytes, rank=rank)
        case _:
            raise ValueError(f"{backend!r}: expected gloo, nccl or ipc")
