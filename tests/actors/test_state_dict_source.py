"""What the learners send: every tensor of the state dict, cast, unless it is kept back; alone or in buckets."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from vllm.distributed.weight_transfer.base import ParamMeta

from actors.quantization import QuantizationKind, rounded_through
from actors.state_dict_source import Change, StateDictSource, as_it_is
from actors.weight_buckets import buckets

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


def test_names_of_a_tied_tensor_are_told_where_both_are_sent() -> None:
    tensors = {name: torch.zeros(2) for name in ("embedding", "norm", "head")}
    for dropped, told in (("norm", {"head": "embedding"}), ("head", {}), ("embedding", {})):
        tied = {"head": "embedding"}
        kept = StateDictSource(lambda: tensors, torch.bfloat16, keep=lambda name: name != dropped, tied=tied)  # noqa: B023
        assert kept.further_names() == told


@pytest.mark.parametrize("change", [as_it_is, partial(rounded_through, "int8")])
def test_buckets_hold_what_is_sent_tensor_by_tensor(change: Change, mesh: DeviceMesh) -> None:
    generator = torch.Generator().manual_seed(4)
    weights = {
        "0.up_proj.weight": distribute_tensor(torch.randn(5, 7, generator=generator), mesh, [Shard(0)]),
        "0.down_proj.weight": distribute_tensor(torch.randn(4, 6, generator=generator), mesh, [Shard(1)]),
        "0.norm": torch.randn(3, generator=generator),
        "1.up_proj.weight": distribute_tensor(torch.randn(40, 7, generator=generator), mesh, [Shard(0)]),
    }
    sent = StateDictSource(lambda: weights, torch.bfloat16, keep=lambda name: True, change=change)
    expected = torch.cat([tensor.reshape(-1) for _, tensor in sent]).view(torch.uint8)
    for _ in range(2):
        packing = buckets(sent.metadata(), 150)
        assert len(packing) == 2
        assert torch.equal(torch.cat([flat.clone() for flat in sent.packed(packing)]), expected)
