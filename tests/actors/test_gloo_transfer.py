"""Weights over gloo: the wire form of metadata, and real tensors from one end to the other."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from vllm.distributed.weight_transfer.base import ParamMeta

from actors import gloo_transfer
from actors.gloo_transfer import (
    GlooInitInfo,
    GlooTrainerEngine,
    GlooTrainerInitInfo,
    GlooUpdateInfo,
    GlooWeightTransferEngine,
    InForce,
)
from actors.weight_buckets import Bucket, BucketSource

pytestmark = pytest.mark.slow

dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
metas = st.lists(
    st.builds(ParamMeta, st.text(max_size=5), dtypes, st.lists(st.integers(0, 5), max_size=3).map(tuple)), max_size=12
)


class Source(BucketSource):
    """Given tensors, under their names."""

    def __init__(self, tensors: dict[str, Tensor], further: dict[str, str] | None = None) -> None:
        self.tensors = tensors
        self.further = further or {}

    def metadata(self) -> list[ParamMeta]:
        return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.tensors.items()]

    def __iter__(self) -> Any:
        return iter(self.tensors.items())

    def further_names(self) -> dict[str, str]:
        return self.further

    def packed(self, packing: Sequence[Bucket]) -> Iterator[Tensor]:
        for bucket in packing:
            yield torch.cat([self.tensors[meta.name].reshape(-1) for meta in bucket]).view(torch.uint8)


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

    def begin_update(self, update_info: dict[str, Any]) -> InForce:
        self.calls.append("update")
        return ThreadPoolExecutor(max_workers=1).submit(self._take, update_info).result

    def _take(self, update_info: dict[str, Any]) -> None:
        try:
            self.receiver.update_weights(update_info)
        except BaseException:
            self.receiver.shutdown()
            raise


def receiver_for(model: RecordingModel) -> GlooWeightTransferEngine:
    config: Any = SimpleNamespace(parallel_config=SimpleNamespace(rank=0), model_config=None)
    return GlooWeightTransferEngine(None, config, torch.device("cpu"), model)  # type: ignore[arg-type]


def connected(model: RecordingModel, source: Source) -> tuple[GlooTrainerEngine, Client]:
    """A sender that the model's receiver has joined."""
    client: Any = Client(receiver_for(model))
    info = GlooTrainerInitInfo(host="127.0.0.1", world_size=2, rank=0)
    return GlooTrainerEngine.trainer_init(info, client=client, source=source), client


@given(metas)
def test_metadata_survive_the_wire(metadata: list[ParamMeta]) -> None:
    tensors = {meta.name: torch.empty(meta.shape, dtype=meta.dtype) for meta in metadata}
    source = Source(tensors)
    assert GlooUpdateInfo(**asdict(GlooUpdateInfo.of(source))).metadata() == source.metadata()


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
    sender, client = connected(model, Source(tensors))
    for _ in range(2):
        model.loaded.clear()
        sender.send_weights()
        assert list(model.loaded) == list(tensors)
        for name, tensor in tensors.items():
            assert model.loaded[name].dtype == tensor.dtype
            assert torch.equal(model.loaded[name], tensor)
        tensors["last"].mul_(-1)
    assert client.calls == ["init", "update", "update"]


def test_a_tensor_of_two_names_travels_once_and_is_loaded_under_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tensors = {"embedding": torch.arange(6.0).view(3, 2), "norm": torch.ones(2), "head": torch.arange(6.0).view(3, 2)}
    source = Source(tensors, further={"head": "embedding"})
    assert [meta.name for meta in GlooUpdateInfo.of(source).metadata()] == ["embedding", "norm"]
    model = RecordingModel()
    connected(model, source)[0].send_weights()
    assert model.loaded.keys() == tensors.keys()
    assert all(torch.equal(model.loaded[name], tensor) for name, tensor in tensors.items())


def test_tensors_that_the_model_holds_on_to_stay_as_they_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Holding(RecordingModel):
        def load_weights(self, weights: list[tuple[str, Tensor]]) -> None:
            self.loaded.update({name: tensor for name, tensor in weights if int(name) % 2})

    monkeypatch.setattr(gloo_transfer, "BUCKET_BYTES", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tensors = {str(number): torch.full((10,), float(number)) for number in range(20)}
    model = Holding()
    connected(model, Source(tensors))[0].send_weights()
    assert len(model.loaded) == 10
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.loaded.items())


def test_an_update_that_a_receiver_refuses_raises_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(RecordingModel):
        def load_weights(self, weights: list[tuple[str, Tensor]]) -> None:
            raise KeyError("no such layer")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sender, _ = connected(Refusing(), Source({"a": torch.zeros(2)}))
    with pytest.raises(KeyError, match="no such layer"):
        sender.send_weights()


@pytest.mark.parametrize("tensors", [1, 5])
def test_a_receiver_that_fails_before_it_has_received_anything_is_not_waited_for(
    tensors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gloo_transfer, "BUCKET_BYTES", 8)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sender, client = connected(RecordingModel(), Source({str(i): torch.zeros(2) for i in range(tensors)}))

    def fail(update_info: dict[str, Any]) -> None:
        raise MemoryError("the engine cannot wake up")

    monkeypatch.setattr(client.receiver, "update_weights", fail)
    started = time.monotonic()
    with pytest.raises(MemoryError, match="cannot wake up"):
        sender.send_weights()
    assert time.monotonic() - started < gloo_transfer.TIMEOUT.total_seconds() / 2


def test_an_error_of_the_senders_own_is_not_taken_for_that_of_a_receiver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Source):
        def packed(self, packing: Sequence[Bucket]) -> Iterator[Tensor]:
            yield from super().packed(packing[:1])
            raise KeyError("no such shard")

    monkeypatch.setattr(gloo_transfer, "BUCKET_BYTES", 8)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sender, _ = connected(RecordingModel(), Broken({"a": torch.zeros(2), "b": torch.zeros(2)}))
    with pytest.raises(KeyError, match="no such shard"):
        sender.send_weights()


def test_a_rank_that_is_not_the_sender_gathers_and_calls_nobody() -> None:
    gathered = []

    class Counting(Source):
        def packed(self, packing: Sequence[Bucket]) -> Iterator[Tensor]:
            for flat in super().packed(packing):
                gathered.append(flat.numel())
                yield flat

    info = GlooTrainerInitInfo(host="127.0.0.1", world_size=2, rank=1)
    client: Any = None
    source = Counting({"a": torch.zeros(2), "b": torch.zeros(3, dtype=torch.bfloat16)})
    GlooTrainerEngine.trainer_init(info, client=client, source=source).send_weights()
    assert gathered == [8, 6]


def test_a_sender_without_weights_is_refused() -> None:
    client: Any = None
    with pytest.raises(ValueError, match="BucketSource; None was given"):
        GlooTrainerEngine.trainer_init(GlooTrainerInitInfo(host="127.0.0.1", world_size=2, rank=0), client=client)
