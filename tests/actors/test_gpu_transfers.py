"""NCCL and CUDA IPC without a GPU: vLLM's own ends and ours, over stand-ins for what only a GPU can do."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from vllm.distributed.weight_transfer import ipc_engine, nccl_engine
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo, NCCLWeightTransferEngine
from vllm.distributed.weight_transfer.packed_tensor import PackedIpcChunk

from actors.config import RolloutConfig
from actors.faults import Faults
from actors.rollout_worker import EngineSpec, IncompleteUpdate, RolloutWorker
from actors.state_dict_source import StateDictSource
from actors.weight_publisher import CHUNK_BYTES, WeightPublisher, chunk_bytes, trainer_init_info

pytestmark = pytest.mark.slow
PATIENCE_S = 20.0
HOST = "10.0.0.5"
MERGED = {"gate_up_proj": ["gate_proj", "up_proj"]}


class World:
    """A communicator's ranks, in threads of this process: all block until all have joined."""

    def __init__(self, world_size: int) -> None:
        self.met = threading.Barrier(world_size, timeout=PATIENCE_S)
        self.queues = {rank: Queue[Tensor]() for rank in range(1, world_size)}
        self.places: set[tuple[str, int]] = set()
        self.left: list[int] = []


class Communicator:
    """A rank of it."""

    def __init__(self, world: World, rank: int, place: tuple[str, int]) -> None:
        self._world = world
        self._rank = rank
        world.places.add(place)
        world.met.wait()

    def broadcast(self, tensor: Tensor, src: int) -> None:
        assert src == 0
        if self._rank:
            tensor.copy_(self._world.queues[self._rank].get(timeout=PATIENCE_S))
            return
        for queue in self._world.queues.values():
            queue.put(tensor.clone())

    def destroy(self) -> None:
        self._world.left.append(self._rank)


class Model:
    """Keeps what it is told to load."""

    def __init__(self) -> None:
        self.loaded: dict[str, Tensor] = {}

    def load_weights(self, weights: list[tuple[str, Tensor]]) -> None:
        self.loaded |= {name: tensor.clone() for name, tensor in weights}


class SplitEngine:
    """What a rollout worker asks of vLLM, with the given receiving end in each of its processes."""

    def __init__(self, receivers: Sequence[Any]) -> None:
        self._receivers = receivers
        self.calls: list[str] = []

    def init_weight_transfer_engine(self, request: dict[str, Any]) -> None:
        self.calls.append("init")
        self._each(lambda end: end.init_transfer_engine(end.parse_init_info(request["init_info"])))

    def start_weight_update(self) -> None:
        self.calls.append("start")

    def update_weights(self, request: Any) -> None:
        self.calls.append("update")
        self._each(lambda end: end.receive_weights(end.parse_update_info(request.update_info)))

    def finish_weight_update(self) -> None:
        self.calls.append("finish")

    def update_weight_version(self, version: str) -> None:
        self.calls.append(f"version {version}")

    def collective_rpc(self, method: str) -> None:
        self.calls.append(method)

    def reset_prefix_cache(self) -> bool:
        return True

    def _each(self, call: Any) -> None:
        with ThreadPoolExecutor(len(self._receivers)) as threads:
            list(threads.map(call, self._receivers))


class Handle:
    """A rollout worker as Ray shows it to others."""

    def __init__(self, worker: RolloutWorker) -> None:
        self._worker = worker
        self._thread = ThreadPoolExecutor(1)

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *args: self._thread.submit(getattr(self._worker, method), *args))


def fetched(answers: list[Future[Any]]) -> list[Any]:
    return [answer.result(PATIENCE_S) for answer in answers]


def worker_with(engine: SplitEngine, index: int, transfer: str, split: int) -> RolloutWorker:
    config = RolloutConfig(prompts_per_step=1, group_size=2, max_response_tokens=8, tensor_parallel_size=split)
    spec = EngineSpec(model="-", config=config, max_model_len=64, transfer=transfer, index=index, faults=Faults())
    worker = RolloutWorker(spec)
    worker._engine = engine
    worker._merged_parts = MERGED
    return worker


def source(**tensors: Tensor) -> StateDictSource:
    return StateDictSource(lambda: tensors, torch.bfloat16, keep=lambda name: True)


def one_by_one(iterator: Iterator[Any], group: Communicator, **_: Any) -> None:
    """Stands in for packed sending, which needs CUDA's streams."""
    for _name, tensor in iterator:
        group.broadcast(tensor, src=0)


def received_one_by_one(iterator: Iterator[Any], group: Communicator, post_unpack_func: Any, **_: Any) -> None:
    for name, (shape, dtype) in iterator:
        tensor = torch.empty(shape, dtype=dtype)
        group.broadcast(tensor, src=0)
        post_unpack_func([(name, tensor)])


@pytest.fixture
def nccl(monkeypatch: pytest.MonkeyPatch) -> World:
    """vLLM's NCCL backend over threads, for two engines that are split over two GPUs each."""
    world = World(world_size=5)

    def open_sender(info: NCCLTrainerInitInfo) -> Communicator:
        return Communicator(world, 0, (info.master_address, info.master_port))

    def join(info: Any, parallel: Any) -> Communicator:
        assert info.world_size == 5
        return Communicator(world, info.rank_offset + parallel.rank, (info.master_address, info.master_port))

    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", open_sender)
    monkeypatch.setattr(nccl_engine, "worker_init_process_group", join)
    monkeypatch.setattr(nccl_engine, "packed_nccl_broadcast_producer", one_by_one)
    monkeypatch.setattr(nccl_engine, "packed_nccl_broadcast_consumer", received_one_by_one)
    monkeypatch.setattr("ray.get", fetched)
    return world


def nccl_receiver(rank: int, model: Model) -> NCCLWeightTransferEngine:
    config: Any = SimpleNamespace(parallel_config=SimpleNamespace(rank=rank), model_config=None)
    return NCCLWeightTransferEngine(None, config, torch.device("cpu"), model)  # type: ignore[arg-type]


def test_over_nccl_every_process_of_every_engine_has_a_rank_of_its_own_and_gets_all_weights(nccl: World) -> None:
    models = [[Model(), Model()] for _ in range(2)]
    engines = [SplitEngine([nccl_receiver(rank, model) for rank, model in enumerate(of_one)]) for of_one in models]
    handles = [Handle(worker_with(engine, i, "nccl", split=2)) for i, engine in enumerate(engines)]
    tensors = {"a.weight": torch.randn(4, 3), "b.weight": torch.randn(5)}
    sender = WeightPublisher("nccl", 0, HOST, handles, source(**tensors), engine_processes=2)
    other_rank = WeightPublisher("nccl", 1, HOST, handles, source(**tensors), engine_processes=2)
    for version in (1, 2):
        other_rank.publish(version)
        sender.publish(version)
    assert len(nccl.places) == 1
    assert {host for host, _ in nccl.places} == {HOST}
    for model in (model for of_one in models for model in of_one):
        assert model.loaded.keys() == tensors.keys()
        assert all(torch.equal(model.loaded[name], tensors[name].bfloat16()) for name in tensors)
    once = ["start", "update", "finish"]
    for engine in engines:
        assert engine.calls == ["init", *once, "version 1", *once, "version 2"], "the other rank calls nobody"
    other_rank.close()
    assert nccl.left == []
    sender.close()
    assert nccl.left == [0]


def test_a_rank_that_does_not_send_gathers_every_tensor_and_opens_nothing(nccl: World) -> None:
    gathered: list[str] = []
    counted = StateDictSource(
        lambda: {"a": torch.zeros(2), "b": torch.zeros(3)},
        torch.bfloat16,
        keep=lambda name: True,
        change=lambda name, tensor: gathered.append(name) or tensor,
    )
    WeightPublisher("nccl", 1, HOST, [], counted).publish(1)
    assert gathered == ["a", "b"]
    assert not nccl.places


def test_tensors_travel_in_chunks_that_the_largest_of_them_fits_in() -> None:
    assert chunk_bytes(source(small=torch.zeros(4))) == CHUNK_BYTES
    large = StateDictSource(
        lambda: {"embedding": torch.empty(152_064, 4096, device="meta")}, torch.bfloat16, keep=lambda name: True
    )
    assert chunk_bytes(large) == 152_064 * 4096 * 2
    for kind in (NCCLTrainerInitInfo, IPCTrainerInitInfo):
        info: Any = trainer_init_info(kind.backend, rank=0, host=HOST, world_size=2, chunk_bytes=chunk_bytes(large))
        assert isinstance(info, kind)
        assert info.packed
        assert info.packed_buffer_size_bytes == chunk_bytes(large)


class IpcReceiver:
    """Takes chunks that name their tensors by handle."""

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self.packed: bool | None = None
        self.received: list[str] = []

    def parse_init_info(self, info: dict[str, Any]) -> dict[str, Any]:
        return info

    def init_transfer_engine(self, info: dict[str, Any]) -> None:
        self.packed = info["packed"]

    def parse_update_info(self, info: dict[str, Any]) -> dict[str, Any]:
        return info

    def receive_weights(self, info: dict[str, Any]) -> None:
        assert info["ipc_handles"][self._uuid] == ("handle",)
        self.received += info["names"]


@pytest.fixture
def ipc(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's IPC backend with a GPU that is told of, and one tensor a chunk."""

    def chunks(iterator: Iterator[tuple[str, Tensor]], gpu_uuid: str, **_: Any) -> Iterator[PackedIpcChunk]:
        for name, tensor in iterator:
            yield PackedIpcChunk([name], [list(tensor.shape)], ["bfloat16"], [tensor.nbytes], {gpu_uuid: ("handle",)})

    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="GPU-1"))
    monkeypatch.setattr(torch.cuda, "ipc_collect", lambda: None)
    monkeypatch.setattr(ipc_engine, "packed_ipc_producer", chunks)
    monkeypatch.setattr("ray.get", fetched)


PARTS = {"layers.0.gate_proj.weight": torch.zeros(2), "layers.0.up_proj.weight": torch.zeros(2)}


@pytest.mark.usefixtures("ipc")
def test_over_ipc_an_update_comes_in_several_parts_which_count_together() -> None:
    receiver = IpcReceiver("GPU-1")
    engine = SplitEngine([receiver])
    publisher = WeightPublisher("ipc", 0, HOST, [Handle(worker_with(engine, 0, "ipc", split=1))], source(**PARTS))
    publisher.publish(3)
    assert receiver.packed
    assert receiver.received == list(PARTS)
    assert engine.calls == ["init", "start", "update", "update", "finish", "version 3"]


@pytest.mark.usefixtures("ipc")
def test_over_ipc_too_a_missing_part_of_a_merged_layer_is_noticed_and_the_next_update_can_begin() -> None:
    engine = SplitEngine([IpcReceiver("GPU-1")])
    worker = worker_with(engine, 0, "ipc", split=1)
    kept = dict(list(PARTS.items())[:1])
    with pytest.raises(IncompleteUpdate, match="up_proj"):
        WeightPublisher("ipc", 0, HOST, [Handle(worker)], source(**kept)).publish(1)
    engine.calls.clear()
    WeightPublisher("ipc", 0, HOST, [Handle(worker)], source(**PARTS)).publish(1)
    leave = ["abandon_weight_update", "shutdown_weight_transfer_engine"]
    assert engine.calls == [*leave, "init", "start", "update", "update", "finish", "version 1"]
