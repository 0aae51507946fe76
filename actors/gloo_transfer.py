"""A backend of vLLM's weight-transfer API for CPUs: broadcast over gloo, loaded by vLLM's layer-by-layer reload.

NCCL and CUDA IPC come with vLLM; this one is of the same make. Importing the module registers both of its ends.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import timedelta
from math import prod
from typing import Any, ClassVar

import torch
from torch.distributed import BroadcastOptions, PrefixStore, ProcessGroup, Store, Work
from vllm.distributed.utils import init_gloo_process_group
from vllm.distributed.weight_transfer import WeightTransferEngineFactory, WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.base import (
    ParamMeta,
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    VLLMWeightSyncClient,
    WeightSource,
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from actors.rendezvous import Rendezvous, join

BUCKET_BYTES = 32 * 2**20
TIMEOUT = timedelta(minutes=2)  # for one side to wait for the other


@dataclass
class GlooInitInfo(WeightTransferInitInfo):
    """What a rollout worker needs to join the broadcast group."""

    address: str  # of the sender's rendezvous
    world_size: int
    rank_offset: int  # of this rollout worker's first process; the sender is rank 0


@dataclass
class GlooUpdateInfo(WeightTransferUpdateInfo):
    """Names, dtypes and full shapes of the tensors about to be broadcast, in order."""

    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]

    @staticmethod
    def of(metadata: Sequence[ParamMeta]) -> "GlooUpdateInfo":
        """The wire form of a source's metadata."""
        return GlooUpdateInfo(
            names=[meta.name for meta in metadata],
            dtype_names=[str(meta.dtype).removeprefix("torch.") for meta in metadata],
            shapes=[list(meta.shape) for meta in metadata],
        )

    def metadata(self) -> list[ParamMeta]:
        """The metadata this was made of."""
        fields = zip(self.names, self.dtype_names, self.shapes, strict=True)
        return [ParamMeta(name, getattr(torch, dtype), tuple(shape)) for name, dtype, shape in fields]


def buckets(metadata: Sequence[ParamMeta], limit_bytes: int) -> list[list[ParamMeta]]:
    """Consecutive tensors of one dtype packed into buckets of at most `limit_bytes` (a larger tensor is alone)."""
    packed: list[list[ParamMeta]] = []
    room = 0
    for meta in metadata:
        size = prod(meta.shape) * meta.dtype.itemsize
        if not packed or size > room or meta.dtype != packed[-1][0].dtype:
            packed.append([])
            room = limit_bytes
        packed[-1].append(meta)
        room -= size
    return packed


class GlooWeightTransferEngine(WeightTransferEngine[GlooInitInfo, GlooUpdateInfo]):
    """The receiving end, inside vLLM's worker."""

    init_info_cls = GlooInitInfo
    update_info_cls = GlooUpdateInfo
    _group: ProcessGroup | None = None

    def init_transfer_engine(self, init_info: GlooInitInfo) -> None:
        """Join the sender's group."""
        self._group = _group_of(
            join(init_info.address, init_info.world_size),
            rank=init_info.rank_offset + self.parallel_config.rank,
            world_size=init_info.world_size,
        )

    def start_weight_update(self) -> None:
        """Open the model for loading, layer by layer."""
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Receive and load; the base class's device synchronisation has no CPU form."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: GlooUpdateInfo) -> None:
        """Receive bucket after bucket and hand its tensors to the model; the next arrives while one is loaded."""
        packed = buckets(update_info.metadata(), BUCKET_BYTES)
        with ThreadPoolExecutor(max_workers=1) as side:
            arriving = [side.submit(self._receive, bucket) for bucket in packed[:1]]
            for number, bucket in enumerate(packed, start=1):
                flat = arriving.pop().result()
                arriving += [side.submit(self._receive, following) for following in packed[number : number + 1]]
                sizes = [prod(meta.shape) for meta in bucket]
                pieces = zip(bucket, flat.split(sizes), strict=True)
                self._load([(meta.name, piece.view(meta.shape)) for meta, piece in pieces])

    def _receive(self, bucket: Sequence[ParamMeta]) -> torch.Tensor:
        """The tensors of a bucket, one after the other."""
        assert self._group is not None, "init_transfer_engine comes first"
        flat = torch.empty(sum(prod(meta.shape) for meta in bucket), dtype=bucket[0].dtype)
        _broadcast(self._group, flat).wait()
        return flat

    def _load(self, weights: list[tuple[str, torch.Tensor]]) -> None:
        self.model.load_weights(weights)  # type: ignore[operator]  # nn.Module does not say that vLLM models have it

    def finish_weight_update(self) -> None:
        """Close the model again; what was loaded is in force from here on."""
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Leave the group."""
        self._group = None


@dataclass
class GlooTrainerInitInfo(TrainerInitInfo):
    """What the sender needs to open the group: an address of its own and how many will be in it."""

    backend: ClassVar[str] = "gloo"

    host: str
    world_size: int  # the sender and all receiving workers


class GlooTrainerEngine(TrainerWeightTransferEngine[GlooTrainerInitInfo]):
    """The sending end, on every learner rank. Only rank 0 broadcasts; the others take part in the gathering."""

    init_info_cls = GlooTrainerInitInfo
    _group: ProcessGroup | None = None

    @classmethod
    def trainer_init(
        cls, init_info: GlooTrainerInitInfo, *, client: VLLMWeightSyncClient, source: WeightSource | None = None
    ) -> "GlooTrainerEngine":
        """Open the group on rank 0 and have the rollout workers join it.

        Raises:
            ValueError: no source of weights was given.
        """
        if source is None:
            raise ValueError("the gloo weight transfer sends a WeightSource; none was given")
        engine = cls(client=client, source=source, is_sender=init_info.is_sender)
        if engine.is_sender:
            engine._open(init_info)
        return engine

    def _open(self, init_info: GlooTrainerInitInfo) -> None:
        meeting = Rendezvous.open(init_info.host)
        joined = GlooInitInfo(address=meeting.address, world_size=init_info.world_size, rank_offset=1)
        with ThreadPoolExecutor(max_workers=1) as side:  # both ends block until all have met
            answer = side.submit(self.client.init_weight_transfer_engine, asdict(joined))
            self._group = _group_of(meeting.store(init_info.world_size), rank=0, world_size=init_info.world_size)
            answer.result()

    def send_weights(self) -> None:
        """Send all tensors of the source. Collective over the learner ranks."""
        assert self.source is not None
        if not self.is_sender:
            for _ in self.source:
                pass
            return
        tensors = iter(self.source)
        try:
            self._send_all(self.source.metadata(), tensors)
        except BaseException:
            self._group = None  # closes its connections: a receiver that waits for the rest learns that none will come
            for _ in tensors:  # the other ranks gather what is left, too
                pass
            raise

    def _send_all(self, metadata: Sequence[ParamMeta], tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        self.client.start_weight_update()
        side = ThreadPoolExecutor(max_workers=1)
        try:
            answer = side.submit(self.client.update_weights, asdict(GlooUpdateInfo.of(metadata)))
            self._broadcast_all(metadata, tensors)
            answer.result()
        finally:
            side.shutdown(wait=False)  # after a failed broadcast the receivers may hang; never wait for them here
        self.client.finish_weight_update()

    def _broadcast_all(self, metadata: Sequence[ParamMeta], tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        assert self._group is not None, "the group is gone after a failed update: open the transfer anew"
        under_way: list[tuple[Work, torch.Tensor]] = []  # with its memory, which is needed for as long
        for bucket in buckets(metadata, BUCKET_BYTES):
            flat = torch.cat([next(tensors)[1].reshape(-1) for _ in bucket])  # while the one before is sent
            for work, _ in under_way:
                work.wait()
            under_way = [(_broadcast(self._group, flat), flat)]
        for work, _ in under_way:
            work.wait()


def _group_of(store: Store, rank: int, world_size: int) -> ProcessGroup:
    """A gloo group beside torch's default one, which both ends have for themselves."""
    return init_gloo_process_group(PrefixStore("weight-transfer", store), rank, world_size, TIMEOUT)


def _broadcast(group: ProcessGroup, flat: torch.Tensor) -> Work:
    """Begin to send `flat` to all, or to receive it; the sender is rank 0."""
    options = BroadcastOptions()
    options.rootRank = 0
    options.rootTensor = 0
    # As bytes: gloo knows no bfloat16.
    return group.broadcast([flat.view(torch.uint8)], options)


WeightTransferEngineFactory.register_engine("gloo", GlooWeightTransferEngine)
WeightTransferTrainerFactory.register_engine("gloo", GlooTrainerEngine)
