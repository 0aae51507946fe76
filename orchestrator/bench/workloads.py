"""What the step benchmark runs: the demo's step, and a bigger one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.bench.made_models import make_model
from orchestrator.config import ExperimentConfig
from orchestrator.model_files import EMBEDDED, ModelFiles, find_model

NO_LEARNING = {"kind": "constant", "lr": 1e-12}  # the bare engine keeps its weights: both sample the same tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A step, and what is wanted of it.

    Example:
        Workload(name="demo", config=config, model=model, target=1.25)
    """

    name: str
    config: ExperimentConfig
    model: ModelFiles
    target: float  # the whole step over the bare parts, at most


def demo(folder: Path) -> Workload:
    """The embedded model: 8 prompts x 4 responses of up to 64 tokens, flat groups dropped, two learners."""
    rollout = {"prompts_per_step": 8, "group_size": 4, "max_response_tokens": 64}
    config = _config(
        "bench-demo",
        EMBEDDED,
        {**rollout, "filter_flat_groups": True, "max_rounds": 3},
        {"workers": 2, "tokens_per_microbatch": 8192},
    )
    return Workload(name="demo", config=config, model=find_model(config, "bench"), target=1.25)


def bigger(folder: Path) -> Workload:
    """A model of 8M parameters: 32 prompts x 8 responses of up to 128 tokens, one learner."""
    model = make_model(folder / "bigger", hidden=256, layers=8, vocabulary=2048)
    rollout = {"prompts_per_step": 32, "group_size": 8, "max_response_tokens": 128}
    config = _config("bench-bigger", model.path, rollout, {"workers": 1, "tokens_per_microbatch": 8192})
    return Workload(name="bigger", config=config, model=model, target=1.10)


WORKLOADS: dict[str, Callable[[Path], Workload]] = {"demo": demo, "bigger": bigger}


def _config(name: str, model: str, rollout: dict[str, Any], learner: dict[str, Any]) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "name": name,
            "model": {"path": model},
            "task": {"kind": "arithmetic", "digits": 3},
            "rollout": rollout,
            "learner": learner,
            "scheduler": NO_LEARNING,
            "steps": 1000,
        }
    )
