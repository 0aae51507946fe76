"""What the learners send: every tensor of the state dict, cast, unless it is kept back."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.base import ParamMeta
from vllm.distributed.weight_transfer.clients import RayVLLMWeightSyncClient
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

from actors.gloo_transfer import GlooTrainerInitInfo
from actors.quantization import QuantizationKind, rounded_through
from actors.rollout_worker import IncompleteUpdate, PrefixCacheKept
from actors.weight_publisher import StateDictSource, VersionedClient, WeightPublisher, trainer_init_info

pytestmark = pytest.mark.slow


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """Of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def tied_model() -> nn.Module:
    model = nn.Module()
    model.embedding = nn.Embedding(3, 2)
    model.head = nn.Linear(2, 3, bias=False)
    model.head.weight = model.embedding.weight
    return model


def source(state_dict: dict[str, Tensor], kept: str = "") -> StateDictSource:
    return StateDictSource(lambda: state_dict, torch.bfloat16, keep=lambda name: name != kept)


def test_a_tied_tensor_is_sent_under_both_of_its_names() -> None:
    model = tied_model()
    assert len(list(model.named_parameters())) == 1
    names = ["embedding.weight", "head.weight"]
    assert [one.name for one in source(model.state_dict()).metadata()] == names
    assert [name for name, _ in source(model.state_dict())] == names


def test_tensors_are_cast_to_the_wire_dtype_and_announced_in_it() -> None:
    weight = torch.tensor([[1.0, 1.00001], [3.0, -2.0]])
    of_weight = source({"a": weight})
    assert of_weight.metadata() == [ParamMeta("a", torch.bfloat16, (2, 2))]
    ((_, sent),) = of_weight
    assert sent.dtype == torch.bfloat16
    assert torch.equal(sent, weight.bfloat16())
    assert weight.dtype == torch.float32


def test_what_is_kept_back_is_neither_announced_nor_sent() -> None:
    without_b = source({"a": torch.zeros(1), "b": torch.zeros(2)}, kept="b")
    assert [one.name for one in without_b.metadata()] == ["a"]
    assert [name for name, _ in without_b] == ["a"]


def test_a_sharded_tensor_is_announced_without_gathering_and_sent_whole(
    mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered = []
    full_tensor = DTensor.full_tensor
    monkeypatch.setattr(DTensor, "full_tensor", lambda shard: gathered.append(shard) or full_tensor(shard))
    of_shards = source({"a": distribute_tensor(torch.ones(4, 3), mesh, [Shard(0)])})
    assert of_shards.metadata() == [ParamMeta("a", torch.bfloat16, (4, 3))]
    assert not gathered
    for count in (1, 2):
        ((_, sent),) = of_shards
        assert not isinstance(sent, DTensor)
        assert sent.shape == (4, 3)
        assert len(gathered) == count


def test_each_pass_reads_the_weights_as_they_are_then() -> None:
    weight = torch.zeros(2)
    of_weight = source({"a": weight})
    list(of_weight)
    weight.fill_(3.0)
    assert [tensor.tolist() for _, tensor in of_weight] == [[3.0, 3.0]]


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_quantised_weights_are_sent_and_the_learner_s_own_stay_as_they_are(
    kind: QuantizationKind, mesh: DeviceMesh
) -> None:
    exact = torch.randn(4, 300, generator=torch.Generator().manual_seed(2))
    weights = {
        "layers.0.up_proj.weight": exact.clone(),
        "layers.1.up_proj.weight": distribute_tensor(exact.clone(), mesh, [Shard(1)]),
        "embed_tokens.weight": exact.clone(),
    }
    quantised = StateDictSource(
        lambda: weights, torch.bfloat16, keep=lambda name: True, change=partial(rounded_through, kind)
    )
    sent = dict(quantised)
    expected = rounded_through(kind, "layers.0.up_proj.weight", exact).bfloat16()
    assert not torch.equal(expected, exact.bfloat16())
    assert torch.equal(sent["layers.0.up_proj.weight"], expected)
    assert torch.equal(sent["layers.1.up_proj.weight"], expected), "rows are rounded whole, however they are sharded"
    assert torch.equal(sent["embed_tokens.weight"], exact.bfloat16())
    assert torch.equal(weights["layers.0.up_proj.weight"], exact)
    assert torch.equal(weights["layers.1.up_proj.weight"].full_tensor(), exact)
    assert all(len(row.unique()) <= 255 for row in sent["layers.0.up_proj.weight"].float())


class Transfer:
    """A trainer engine that sends nothing, or fails."""

    def __init__(self, client: VersionedClient, error: Exception | None = None) -> None:
        self._client = client
        self._error = error

    def send_weights(self) -> None:
        if self._error:
            raise self._error
        self._client.finish_weight_update()


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Callable[..., WeightPublisher]:
    """A function that makes a publisher whose transfer fails with the given error."""

    def make(error: Exception | None = None) -> WeightPublisher:
        monkeypatch.setattr(
            WeightTransferTrainerFactory, "trainer_init", lambda info, client, source: Transfer(client, error)
        )
        return WeightPublisher("gloo", 0, "127.0.0.1", [], source({}))

    return make


def test_each_publication_stamps_its_version(
    publisher: Callable[..., WeightPublisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    stamped = []
    monkeypatch.setattr(
        RayVLLMWeightSyncClient, "finish_weight_update", lambda client, version=None: stamped.append(version)
    )
    of_learner = publisher()
    for version in (0, 1, 7):
        of_learner.publish(version)
    assert stamped == ["0", "1", "7"]


@pytest.mark.parametrize(
    "cause", [IncompleteUpdate("model.layers.1.mlp", ["up_proj"]), PrefixCacheKept("the cache is still full")]
)
def test_what_a_rollout_worker_raised_comes_out_without_rays_wrapper(
    publisher: Callable[..., WeightPublisher], cause: Exception
) -> None:
    wrapper: Any = type("RayTaskError", (type(cause),), {"__init__": lambda self: setattr(self, "cause", cause)})
    for error in (cause, wrapper()):
        with pytest.raises(type(cause)) as raised:
            publisher(error).publish(1)
        assert raised.value is cause


def test_an_unknown_backend_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="'mpi': expected gloo, nccl or ipc"):
        trainer_init_info("mpi", rank=0, host="127.0.0.1", world_size=2)


def test_each_backend_gets_its_own_kind_of_address() -> None:
    gloo = trainer_init_info("gloo", rank=1, host="127.0.0.1", world_size=3)
    assert gloo == GlooTrainerInitInfo(host="127.0.0.1", world_size=3, rank=1)
    nccl = trainer_init_info("nccl", rank=0, host="10.0.0.5", world_size=3)
    assert isinstance(nccl, NCCLTrainerInitInfo)
    assert (nccl.master_address, nccl.world_size, nccl.is_sender) == ("10.0.0.5", 3, True)
    assert isinstance(trainer_init_info("ipc", rank=0, host="127.0.0.1", world_size=2), IPCTrainerInitInfo)
