"""What an engine is built with, by where it runs; that vLLM understands it, real engines show."""

from typing import Any

import pytest

from actors import engine
from actors.config import RolloutConfig

pytestmark = pytest.mark.slow


class Arguments(dict[str, Any]):
    """What an engine was built with, and what its model was changed by."""

    changed_by: Any = None

    def apply_model(self, change: Any) -> None:
        """As vLLM's."""
        self.changed_by = change


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that gives the arguments which vLLM would get."""
    monkeypatch.setattr(engine, "LLM", lambda model, **arguments: Arguments(arguments))

    def build(transfer: str, **changes: Any) -> Any:
        config = RolloutConfig(prompts_per_step=1, group_size=2, max_response_tokens=8, **changes)
        return engine.build_engine("-", config, max_model_len=64, transfer=transfer)

    return build


def test_an_engine_on_a_cpu_neither_sleeps_nor_is_split(built: Any) -> None:
    arguments = built("gloo")
    assert arguments["enforce_eager"]
    assert not {"enable_sleep_mode", "tensor_parallel_size", "gpu_memory_utilization"} & arguments.keys()
    assert arguments.changed_by is engine.keep_unpacked


@pytest.mark.parametrize(("transfer", "sleeps"), [("nccl", False), ("ipc", True)])
def test_an_engine_sleeps_where_it_shares_its_gpu(built: Any, transfer: str, sleeps: bool) -> None:
    arguments = built(transfer, gpus_per_worker=0.5, gpu_memory_utilization=0.4)
    assert arguments["enable_sleep_mode"] == sleeps
    assert arguments["gpu_memory_utilization"] == 0.4
    assert arguments.changed_by is None
    assert "distributed_executor_backend" not in arguments


def test_an_engine_that_is_split_has_processes_of_its_own_and_no_ray_actors(built: Any) -> None:
    arguments = built("nccl", gpus_per_worker=4.0, tensor_parallel_size=4)
    assert arguments["tensor_parallel_size"] == 4
    assert arguments["distributed_executor_backend"] == "mp"
