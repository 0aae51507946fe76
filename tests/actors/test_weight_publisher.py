"""The learners' end of the transfer: which version is stamped, what errors come out, which backend is addressed how."""

from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.clients import RayVLLMWeightSyncClient
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

from actors.gloo_transfer import GlooTrainerInitInfo
from actors.rollout_worker import IncompleteUpdate, PrefixCacheKept
from actors.state_dict_source import StateDictSource
from actors.weight_publisher import VersionedClient, WeightPublisher, trainer_init_info

pytestmark = pytest.mark.slow


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
        source = StateDictSource(dict, torch.bfloat16, keep=bool)
        return WeightPublisher("gloo", 0, "127.0.0.1", [], source)

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


class Handle:
    """An actor's, whose answer to an update is settled by hand."""

    def __init__(self) -> None:
        self.answer: Future[None] = Future()
        self.asked: list[tuple[Any, str]] = []
        self.take_weight_update = SimpleNamespace(remote=self._called)

    def _called(self, request: Any, version: str) -> Any:
        self.asked.append((request.update_info, version))
        return SimpleNamespace(future=lambda: self.answer)


def test_a_whole_update_is_one_call_with_its_version_and_waits_for_all() -> None:
    handles = [Handle(), Handle()]
    client = VersionedClient(handles)
    client.version = 7
    in_force = client.begin_update({"names": ["a"]})
    assert [handle.asked for handle in handles] == [[({"names": ["a"]}, "7")]] * 2
    for handle in handles:
        handle.answer.set_result(None)
    in_force(None)


def test_one_that_does_not_answer_in_time_is_told_from_one_that_has_failed() -> None:
    with pytest.raises(TimeoutError):
        VersionedClient([Handle()]).begin_update({})(0.01)


def test_one_that_fails_is_told_of_though_another_never_answers() -> None:
    handles = [Handle(), Handle()]
    in_force = VersionedClient(handles).begin_update({})
    handles[1].answer.set_exception(IncompleteUpdate("model.layers.1.mlp", ["up_proj"]))
    with pytest.raises(IncompleteUpdate):
        in_force(None)


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
