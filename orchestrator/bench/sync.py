"""Weights from the learners into the engines, against a bare broadcast and a bare load of the same bytes."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cluster.session import session
from orchestrator.bench.bare_process import BareProcess
from orchestrator.bench.made_models import make_model, weight_bytes
from orchestrator.bench.pairs import Pairs, interleaved
from orchestrator.bench.result import Figure, Result
from orchestrator.config import ExperimentConfig
from orchestrator.crew.crew import Crew
from orchestrator.crew.crews import Crews
from orchestrator.crew.standing import CrewRequest
from orchestrator.crew.worker_specs import SPINS
from orchestrator.model_files import ModelFiles

TARGET = 0.8
MIB = 2**20
HIDDEN, VOCABULARY = 1024, 16_384
LAYER_MIB = 23.0  # of a decoder layer of that width, in bfloat16
VLLM_ENV = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_COMPILE_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONWARNINGS": "ignore",
    "GLOO_SOCKET_IFNAME": "lo",
}


def measure(mib: int, pairs: int) -> Result:
    """Publish weights as a run does after every step.

    Args:
        mib: of weights in bfloat16, roughly.
        pairs: measurements of both sides.
    """
    layers = max(1, round((mib - HIDDEN * VOCABULARY * 2 / MIB) / LAYER_MIB))
    with TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "model", hidden=HIDDEN, layers=layers, vocabulary=VOCABULARY)
        sent = weight_bytes(model.path)
        broadcasts, loads = [], []
        with _bare(model.path, folder) as (sender, receiver), _crew(model) as crew:
            for process in (sender, receiver):
                process.answer()  # it is ready, the other one being there

            def ours() -> float:
                started = time.perf_counter()
                crew.publish()
                return time.perf_counter() - started

            def bare() -> float:
                sender.begin()
                told = receiver.once()
                sender.answer()
                broadcasts.append(told["broadcast"])
                loads.append(told["load"])
                return float(told["seconds"])

            measured = interleaved(ours, bare, pairs)
    rates = Pairs(
        ours=tuple(sent / MIB / seconds for seconds in measured.ours),
        bare=tuple(sent / MIB / seconds for seconds in measured.bare),
    )
    return Result(
        benchmark="sync",
        settings={"bytes": sent, "layers": layers},
        figures=(
            Figure(
                name="bytes per second / those of a bare broadcast and load",
                value=rates.ratio,
                target=TARGET,
                at_least=True,
                spread=rates.ratios,
                pairs=rates,
            ),
            Figure.median("weights published", "MiB/s", rates.ours),
            Figure.median("bare broadcast and load", "MiB/s", rates.bare),
            Figure.median("bare broadcast alone", "MiB/s", [sent / MIB / seconds for seconds in broadcasts]),
            Figure.median("bare load alone", "MiB/s", [sent / MIB / seconds for seconds in loads]),
        ),
    )


@contextmanager
def _crew(model: ModelFiles) -> Iterator[Crew]:
    config = ExperimentConfig.model_validate(
        {
            "name": "bench-sync",
            "model": {"path": model.path},
            "task": {"kind": "arithmetic"},
            "rollout": {"prompts_per_step": 1, "group_size": 2, "max_prompt_tokens": 64, "max_response_tokens": 64},
            "learner": {},
            "scheduler": {"kind": "constant", "lr": 1e-6},
            "steps": 1,
        }
    )
    with (
        session(config.cluster) as ray_session,
        Crews(ray_session) as crews,
        crews.lend(CrewRequest(config=config, model=model)) as (crew, _),
    ):
        yield crew


@contextmanager
def _bare(model: str, folder: str) -> Iterator[tuple[BareProcess, BareProcess]]:
    threads = len(os.sched_getaffinity(0))
    env = {**VLLM_ENV, "OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", str(SPINS))}
    settings = {"model": model, "store": str(Path(folder) / "store"), "threads": threads}
    with ExitStack() as stack:
        sender, receiver = (BareProcess.start("weights", {**settings, "rank": rank}, env) for rank in (0, 1))
        for process in (sender, receiver):
            stack.callback(process.close)
        yield sender, receiver
