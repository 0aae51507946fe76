"""Weights over gloo: buckets, the wire form of metadata, and real tensors from one end to the other."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

from actors import gloo_transfer
from actors.gloo_transfer import (
    GlooInitInfo,
    GlooTrainerEngine,
    GlooTrainerInitInfo,
    GlooUpdateInfo,
    GlooWeightTransferEngine,
    buckets,
)

pytestmark = pytest.mark.slow

dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
metas = st.lists(
    st.builds(ParamMeta, st.text(max_size=5), dtypes, st.lists(st.integers(0, 5), max_size=3).map(tuple)), max_size=12
)


def meta(num_bytes: int, dtype: torch.dtype = torch.float32) -> ParamMeta:
    return ParamMeta(f"{num_bytes} bytes", dtype, (num_bytes // dtype.itemsize,))


def size_of(one: ParamMeta) -> int:
    return torch.Size(one.shape).numel() * one.dtype.itemsize


class Source(WeightSource):
    """Given tensors, under their names."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def metadata(self) -> list[ParamMeta]:
        return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.tensors.items()]

    def __iter__(self) -> Any:
        return iter(self.tensors.items())


class RecordingModel:
    """Keeps what it is told to load."""

    def __init__(self) -> None:
        self.loaded: dict[str, Tensor] = {}

    def load_weights(self, weights: list[tuple[str, Tensor]]) -> None:
        self.loaded.update({name: tensor.clone() for name, tensor in weights})


class Client:
    """Carries the sender's calls to a receiver in another thread of this process."""

    def __init__(self, receiver: GlooWeightTransferEngine) -> None:
        self.receiver = receiver
        self.calls: list[str] = []

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self.calls.append("init")
        self.receiver.init_transfer_engine(GlooInitInfo(**init_info))

    def start_weight_update(self) -> None:
        self.calls.append("start")

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.calls.append("update")
        self.receiver.update_weights(update_info)

    def finish_weight_update(self) -> None:
        self.calls.append("finish")


def receiver_for(model: RecordingModel) -> GlooWeightTransferEngine:
    config: Any = SimpleNamespace(parallel_config=SimpleNamespace(rank=0), model_config=None)
    return GlooWeightTransferEngine(None, config, torch.device("cpu"), model)  # type: ignore[arg-type]


@given(metas, st.integers(1, 200))
def test_buckets_keep_every_tensor_in_order_within_one_dtype_and_the_limit(
    metadata: list[ParamMeta], limit: int
) -> None:
    packed = buckets(metadata, limit)
    assert [one for bucket in packed for one in bucket] == metadata
    for bucket in packed:
        assert len({one.dtype for one in bucket}) == 1
        assert sum(map(size_of, bucket)) <= limit or len([one for one in bucket if size_of(one)]) == 1


def test_a_bucket_is_filled_up_to_its_limit() -> None:
    metadata = [meta(40), meta(60), meta(4), meta(96)]
    assert buckets(metadata, 100) == [metadata[:2], metadata[2:]]
    assert buckets(metadata, 99) == [metadata[:1], metadata[1:3], metadata[3:]]


def test_another_dtype_opens_another_bucket() -> None:
    metadata = [meta(8), meta(8, torch.bfloat16), meta(8, torch.bfloat16), meta(8)]
    assert buckets(metadata, 100) == [metadata[:1], metadata[1:3], metadata[3:]]


def test_a_tensor_larger_than_the_limit_is_alone() -> None:
    metadata = [meta(40), meta(400), meta(40), meta(40)]
    assert buckets(metadata, 100) == [metadata[:1], metadata[1:2], metadata[2:]]


@given(metas)
def test_metadata_survive_the_wire(metadata: list[ParamMeta]) -> None:
    assert GlooUpdateInfo(**asdict(GlooUpdateInfo.of(metadata))).metadata() == metadata


def test_what_is_sent_arrives_bit_for_bit_in_several_buckets_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gloo_transfer, "BUCKET_BYTES", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where ends on one machine meet
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "matrix": torch.randn(5, 7, generator=generator).bfloat16(),
        "transposed": torch.randn(6, 3, generator=generator).bfloat16().T,
        "scalar": torch.tensor(0.25, dtype=torch.bfloat16),
        "large": torch.randn(40, generator=generator),
        "last": torch.randn(3, generator=generator),
    }
    model = RecordingModel()
    client = Client(receiver_for(model))
    info = GlooTrainerInitInfo(host="127.0.0.1", world_size=2, rank=0)
    sender = GlooTrainerEngine.trainer_init(info, client=client, source=Source(tensors))  # type: ignore[arg-type]
    for _ in range(2):
        model.loaded.clear()
        sender.send_weights()
        assert list(model.loaded) == list(tensors)
        for name, tensor in tensors.items():
            assert model.loaded[name].dtype == tensor.dtype
            assert torch.equal(model.loaded[name], tensor)
        tensors["last"].mul_(-1)
    assert client.calls == ["init", *["start", "update", "finish"] * 2]


def test_a_rank_that_is_not_the_sender_gathers_and_calls_nobody() -> None:
    gathered = []

    class Counting(Source):
        def __iter__(self) -> Any:
            for name, tensor in self.tensors.items():
                gathered.append(name)
                yield name, tensor

    info = GlooTrainerInitInfo(host="127.0.0.1", world_size=2, rank=1)
    client: Any = None
    source = Counting({"a": torch.zeros(2), "b": torch.zeros(3)})
    GlooTrainerEngine.trainer_init(info, client=client, source=source).send_weights()
    assert gathered == ["a", "b"]


def test_a_sender_without_weights_is_refused() -> None:
    client: Any = None
    with pytest.raises(ValueError, match="none was given"):
        GlooTrainerEngine.trainer_init(GlooTrainerInitInfo(host="127.0.0.1", world_size=2, rank=0), client=client)
