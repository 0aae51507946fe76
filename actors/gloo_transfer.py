"""A backend of vLLM's weight-transfer API for CPUs: broadcast over gloo, loaded by vLLM's layer-by-layer reload.

NCCL and CUDA IPC come with vLLM; this one is of the same make. Importing the module registers both of its ends.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
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
from actors.weight_buckets import BUCKET_BYTES, Bucket, BucketSource, LentMemory, buckets, num_bytes, pieces

TIMEOUT = timedelta(minutes=2)  # for one side to wait for the other
REASON_S = 5.0  # for a receiver that gloo has lost to say why
InForce = Callable[[float | None], None]  # waits for so many seconds at most, raises TimeoutError or what failed


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
    further_names: dict[str, str] = field(default_factory=dict)  # a tensor's second name: the one that it travels under

    @staticmethod
    def of(source: BucketSource) -> "GlooUpdateInfo":
        """What a source sends: tensors that have two names travel once."""
        further = source.further_names()
        metadata = [meta for meta in source.metadata() if meta.name not in further]
        return GlooUpdateInfo(
            names=[meta.name for meta in metadata],
            dtype_names=[str(meta.dtype).removeprefix("torch.") for meta in metadata],
            shapes=[list(meta.shape) for meta in metadata],
            further_names=further,
        )

    def metadata(self) -> list[ParamMeta]:
        """The metadata this was made of."""
        fields = zip(self.names, self.dtype_names, self.shapes, strict=True)
        return [ParamMeta(name, getattr(torch, dtype), tuple(shape)) for name, dtype, shape in fields]


class GlooWeightTransferEngine(WeightTransferEngine[GlooInitInfo, GlooUpdateInfo]):
    """The receiving end, inside vLLM's worker."""

    init_info_cls = GlooInitInfo
    update_info_cls = GlooUpdateInfo
    _group: ProcessGroup | None = None

    def init_transfer_engine(self, init_info: GlooInitInfo) -> None:
        """Join the sender's group."""
        self._memory = LentMemory(BUCKET_BYTES)
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
        arriving = [self._receive(bucket) for bucket in packed[:1]]
        for number, bucket in enumerate(packed, start=1):
            work, flat = arriving.pop()
            work.wait()
            arriving += [self._receive(following) for following in packed[number : number + 1]]
            tensors = dict(zip((meta.name for meta in bucket), pieces(bucket, flat), strict=True))
            del flat
            also = {name: tensors[of] for name, of in update_info.further_names.items() if of in tensors}
            self._load([*tensors.items(), *also.items()])
            del tensors, also

    def _receive(self, bucket: Bucket) -> tuple[Work, Tensor]:
        assert self._group is not None, "init_transfer_engine comes first"
        flat = self._memory.lend(num_bytes(bucket))  # vLLM holds the tensors of a layer until it has all of them
        return _broadcast(self._group, flat), flat

    def _load(self, weights: list[tuple[str, Tensor]]) -> None:
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


class UpdateClient(VLLMWeightSyncClient, Protocol):
    """A client that can also have a whole update taken in one call."""

    def begin_update(self, update_info: dict[str, Any]) -> InForce:
        """Have all rollout workers take an update from start to end; returns what waits until it is in force.

        One that fails leaves the group, so that the sender does not wait for it.
        """


class GlooTrainerEngine(TrainerWeightTransferEngine[GlooTrainerInitInfo]):
    """The sending end, on every learner rank. Only rank 0 broadcasts; the others take part in the gathering."""

    init_info_cls = GlooTrainerInitInfo
    client: UpdateClient
    source: BucketSource
    _group: ProcessGroup | None = None

    @classmethod
    def trainer_init(  # type: ignore[override]  # a client of our own
        cls, init_info: GlooTrainerInitInfo, *, client: UpdateClient, source: WeightSource | None = None
    ) -> "GlooTrainerEngine":
        """Open the group on rank 0 and have the rollout workers join it.

        Raises:
            ValueError: no source of weights was given, or one that cannot lay them into buckets.
        """
        if not isinstance(source, BucketSource):
            raise ValueError(f"the gloo weight transfer sends a BucketSource; {source} was given")
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
        info = GlooUpdateInfo.of(self.source)
        packed = self.source.packed(buckets(info.metadata(), BUCKET_BYTES))
        if not self.is_sender:
            for _ in packed:
                pass
            return
        in_force = None
        try:
            in_force = self.client.begin_update(asdict(info))
            self._broadcast_all(packed)
            in_force(None)
        except BaseException as error:
            self._group = None  # closes its connections: a receiver that waits for the rest learns that none will come
            for _ in packed:  # the other ranks gather what is left, too
                pass
            if in_force is not None and isinstance(error, RuntimeError):
                _raise_cause(in_force, error)
            raise

    def _broadcast_all(self, packed: Iterator[Tensor]) -> None:
        assert self._group is not None, "the group is gone after a failed update: open the transfer anew"
        under_way: Work | None = None
        for flat in packed:  # gathered while the one before is sent
            if under_way is not None:
                under_way.wait()
            under_way = _broadcast(self._group, flat)
        if under_way is not None:
            under_way.wait()


def _raise_cause(in_force: InForce, error: RuntimeError) -> None:
    """Raise what a receiver has raised, if that is why gloo lost it."""
    try:
        in_force(REASON_S)
    except TimeoutError:
        return
    except Exception as cause:
        raise cause from error


def _group_of(store: Store, rank: int, world_size: int) -> ProcessGroup:
    """A gloo group beside torch's default one, which both ends have for themselves."""
    return init_gloo_process_group(PrefixStore("weight-transfer", store), rank, world_size, TIMEOUT)


def _broadcast(group: ProcessGroup, flat: Tensor) -> Work:
    """Begin to send bytes to all, or to receive them; the sender is rank 0. Gloo knows no bfloat16."""
    options = BroadcastOptions()
    options.rootRank = 0
    options.rootTensor = 0
    return group.broadcast([flat], options)


WeightTransferEngineFactory.register_engine("gloo", GlooWeightTransferEngine)
WeightTransferTrainerFactory.register_engine("gloo", GlooTrainerEngine)
