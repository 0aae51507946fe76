"""Whole runs on GPUs. Each begins with the weight-sync self-test, which fails when a tensor does not arrive."""

import json
from pathlib import Path

import pytest
import torch
from real_run import evenkeel

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
OWN = ["rollout.gpus_per_worker=1", "learner.gpus_per_worker=1", "learner.dtype=bfloat16"]
SHARED = [
    "cluster.colocate=true",
    "rollout.gpus_per_worker=0.5",
    "learner.gpus_per_worker=0.5",
    "rollout.gpu_memory_utilization=0.3",
    "learner.offload.optimizer=true",
]
SPLIT = [*OWN, "rollout.gpus_per_worker=2", "rollout.tensor_parallel_size=2"]

pytestmark = pytest.mark.gpu


def needing(gpus: int, name: str, *settings: str) -> object:
    """A case that is skipped where there are fewer GPUs."""
    reason = f"needs {gpus} CUDA device" + ("s" if gpus > 1 else "")
    return pytest.param(settings, id=name, marks=pytest.mark.skipif(gpus > GPUS, reason=reason))


@pytest.mark.parametrize(
    "settings",
    [
        needing(1, "ipc between workers that share a gpu", *SHARED),
        needing(2, "nccl between two gpus", *OWN),
        needing(4, "nccl with two ranks and two engines", *OWN, "rollout.workers=2", "learner.workers=2"),
        needing(3, "nccl to an engine that is split over two gpus", *SPLIT),
        needing(2, "nccl from offloaded weights", *OWN, "learner.offload.parameters=true"),
        needing(2, "checkpointed activations", *OWN, "learner.activation_checkpointing=true"),
    ],
)
def test_a_run_passes_its_self_test_and_samples_from_the_weights_that_it_has_learned(
    settings: tuple[str, ...], tiny: Path
) -> None:
    overrides = [part for setting in settings for part in ("--set", setting)]
    done = evenkeel("run", "tiny.yaml", "--arm", "baseline", *overrides, cwd=tiny)
    assert done.returncode == 0, done.stdout + done.stderr
    (metrics,) = tiny.glob("runs/**/metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert all(row["mismatch/log_ppl_abs_diff"] < 0.05 for row in rows), (
        "the engines' weights are those of the learners"
    )
