"""How a rollout worker sleeps, wakes and gets over a broken update, with a stand-in for vLLM's engine."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors.config import RolloutConfig
from actors.engine_process import EngineProcess
from actors.faults import Faults
from actors.messages import SampleRequest
from actors.rollout_worker import EngineSpec, IncompleteUpdate, RolloutWorker

REQUESTS = [SampleRequest(prompt_ids=np.zeros(2, np.int32), seeds=(1,))]
pytestmark = pytest.mark.slow  # vLLM takes seconds to import
EVERYTHING = ["weights", "kv_cache"]


class Engine:
    """Writes down what it is asked for, and refuses to work with memory that it does not have."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.asleep: set[str] = set()
        self.fails = False

    def sleep(self, level: int) -> None:
        self.calls.append(("sleep", level))
        self.asleep = set(EVERYTHING)

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(("wake_up", tags))
        self.asleep -= set(tags)

    def start_weight_update(self) -> None:
        assert "weights" not in self.asleep
        self.calls.append("start")

    def update_weights(self, request: Any) -> None:
        self.calls.append("update")
        if self.fails:
            raise ConnectionError("the sender is gone")

    def finish_weight_update(self) -> None:
        self.calls.append("finish")

    def collective_rpc(self, method: str) -> None:
        assert "weights" not in self.asleep
        self.calls.append(method)

    def reset_prefix_cache(self) -> bool:
        return True

    def init_weight_transfer_engine(self, request: dict[str, Any]) -> None:
        self.calls.append(request["init_info"])

    def sampled(self, *_: Any) -> list[Any]:
        assert not self.asleep
        self.calls.append("sample")
        return []


@pytest.fixture
def worker() -> RolloutWorker:
    """One whose engine is up."""
    config = RolloutConfig(prompts_per_step=1, group_size=2, max_response_tokens=8, tensor_parallel_size=2)
    spec = EngineSpec(model="-", config=config, max_model_len=64, transfer="ipc", index=3, faults=Faults())
    made = RolloutWorker(spec)
    made._engine = engine = Engine()
    made._vllm = SimpleNamespace(sample=engine.sampled)
    return made


def spoken(worker: RolloutWorker) -> list[Any]:
    """What the engine was asked for since the last time."""
    calls = list(worker._engine.calls)
    worker._engine.calls.clear()
    return calls


def update(worker: RolloutWorker, *names: str) -> None:
    worker.start_weight_update()
    worker.update_weights(SimpleNamespace(update_info={"names": list(names)}))
    worker.finish_weight_update()


def test_a_worker_that_is_awake_is_never_woken(worker: RolloutWorker) -> None:
    worker.generate(REQUESTS)
    update(worker, "a")
    worker.wake_up(EVERYTHING)
    assert spoken(worker) == ["sample", "start", "update", "finish"]


def test_an_update_wakes_the_weights_alone_and_sampling_the_rest(worker: RolloutWorker) -> None:
    worker.sleep()
    worker.sleep()
    update(worker, "a")
    assert spoken(worker) == [("sleep", 1), ("wake_up", ["weights"]), "start", "update", "finish"]
    worker.generate(REQUESTS)
    worker.generate(REQUESTS)
    assert spoken(worker) == [("wake_up", ["kv_cache"]), "sample", "sample"]


def test_without_an_update_sampling_wakes_everything(worker: RolloutWorker) -> None:
    worker.sleep()
    worker.generate(REQUESTS)
    assert spoken(worker) == [("sleep", 1), ("wake_up", EVERYTHING), "sample"]


def test_a_worker_that_is_half_awake_can_sleep_again(worker: RolloutWorker) -> None:
    worker.sleep()
    worker.wake_up(["weights"])
    worker.sleep()
    worker.generate(REQUESTS)
    assert spoken(worker)[2:] == [("sleep", 1), ("wake_up", EVERYTHING), "sample"]


def test_an_update_that_fails_on_its_way_is_abandoned_before_the_next_begins(worker: RolloutWorker) -> None:
    worker._engine.fails = True
    with pytest.raises(ConnectionError):
        update(worker, "a")
    worker._engine.fails = False
    spoken(worker)
    update(worker, "a")
    assert spoken(worker) == ["abandon_weight_update", "start", "update", "finish"]


def test_an_update_is_abandoned_before_the_memory_that_it_writes_to_is_given_back(worker: RolloutWorker) -> None:
    worker._merged_parts = {"gate_up_proj": ["gate_proj", "up_proj"]}
    with pytest.raises(IncompleteUpdate):
        update(worker, "layers.0.up_proj.weight")
    worker.sleep()
    assert spoken(worker) == ["start", "update", "abandon_weight_update", ("sleep", 1)]


def test_a_further_connection_ends_the_one_before_it(worker: RolloutWorker) -> None:
    request = SimpleNamespace(init_info={"rank_offset": 1, "world_size": 9})
    worker.init_weight_transfer_engine(request)
    worker.init_weight_transfer_engine(request)
    own = {"rank_offset": 1 + 3 * 2, "world_size": 9}
    assert spoken(worker) == [own, "shutdown_weight_transfer_engine", own]


def test_abandoning_an_update_ends_also_one_that_vllm_takes_for_ended() -> None:
    class Worker(EngineProcess):
        _weight_update_active = False

        def finish_weight_update(self) -> None:
            assert self._weight_update_active
            self._weight_update_active = False

    process = Worker()
    process.abandon_weight_update()
    assert not process._weight_update_active
