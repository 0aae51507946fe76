"""Run as a program: an engine split over two processes on CPUs gets weights over gloo, and is then killed.

Prints a JSON line with what came of it, and the ids of the engine's processes.
"""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.base import WeightTransferInitRequest, WeightTransferUpdateRequest

from actors.config import RolloutConfig
from actors.faults import Faults
from actors.gloo_transfer import InForce
from actors.messages import SampleRequest, TrainSequence
from actors.policy_model import PaddedBatch, PolicyModel
from actors.rollout_worker import EngineSpec, RolloutWorker
from actors.state_dict_source import StateDictSource
from actors.weight_publisher import trainer_init_info

MODEL = str(Path(__file__).parents[2] / "orchestrator" / "demo" / "model")
PROMPT = np.array([3, 7, 2, 9], np.int32)


class Client:
    """Calls the worker as vLLM's client does through Ray."""

    def __init__(self, worker: RolloutWorker) -> None:
        self._worker = worker
        self._thread = ThreadPoolExecutor(max_workers=1)

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._worker.init_weight_transfer_engine(WeightTransferInitRequest(init_info=init_info))

    def begin_update(self, update_info: Any) -> InForce:
        request = WeightTransferUpdateRequest(update_info=update_info)
        taking = self._thread.submit(self._worker.take_weight_update, request, "1")
        return taking.result


def difference(worker: RolloutWorker, model: PolicyModel) -> float:
    """The largest between the log-probs of a sampled response in the engine and in the model."""
    ((response,),) = worker.generate([SampleRequest(prompt_ids=PROMPT, seeds=(5,))], max_tokens=12)
    sequence = TrainSequence(
        group=0,
        prompt_ids=PROMPT,
        response_ids=response.token_ids,
        rollout_logprobs=response.logprobs,
        advantage=0.0,
    )
    batch = PaddedBatch([sequence], torch.device("cpu"))
    with torch.no_grad():
        scored = model(batch.input_ids, batch.positions, batch.targets).logprobs.numpy()
    return float(np.abs(scored - response.logprobs).max())


def main() -> None:
    config = RolloutConfig(
        tensor_parallel_size=2, prompts_per_step=1, group_size=2, max_response_tokens=16, dtype="float32"
    )
    spec = EngineSpec(model=MODEL, config=config, max_model_len=256, transfer="gloo", index=0, faults=Faults())
    worker = RolloutWorker(spec)
    shape = worker.start()
    model = PolicyModel.load(MODEL, temperature=1.0, chunk_bytes=2**20).eval()
    found: dict[str, Any] = {"block_size": shape.block_size, "before": difference(worker, model)}

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3 * parameter.std().nan_to_num(0.1))
    found["stale"] = difference(worker, model)
    source = StateDictSource(model.exported_state, torch.float32, keep=lambda name: True)
    for attempt in ("sent", "sent again"):
        info = trainer_init_info("gloo", rank=0, host="127.0.0.1", world_size=3)
        client: Any = Client(worker)
        sender = WeightTransferTrainerFactory.trainer_init(info, client=client, source=source)
        sender.send_weights()
        found[attempt] = difference(worker, model)
    found["processes"] = [child.pid for child in psutil.Process().children(recursive=True)]
    print(json.dumps(found), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
