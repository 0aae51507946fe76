"""The experiment that an evaluation outside a run stands for: a file of one, or defaults, with another model and set."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.config import ExperimentConfig, ExperimentFile
from orchestrator.config_errors import ConfigError
from orchestrator.evaluation import HELD_OUT
from orchestrator.yaml_files import read_mapping

COMMAND = "evenkeel evaluate"
# What an experiment file would say; the task and the set are added.
PLAIN_EXPERIMENT: dict[str, Any] = {
    "name": "evaluation",
    "task": {"kind": "math"},
    "rollout": {"prompts_per_step": 1, "group_size": 2, "max_response_tokens": 1024},
    "scheduler": {"kind": "constant", "lr": 0.0},
    "steps": 1,
}


def evaluation_config(
    model: str, problems: str, experiment: str | None, options: dict[str, Any], overrides: Sequence[str]
) -> ExperimentConfig:
    """The settings of an evaluation: those of an experiment, or defaults, with the model and the set put in.

    Args:
        model: folder, hub name or `embedded`.
        problems: the name of one of the experiment's sets, or a file.
        experiment: path of the file that says how prompts look, what scores answers and how responses are sampled.
        options: what the `evaluation:` block shall say otherwise.
        overrides: `a.b=value` each.

    Raises:
        ConfigError: with file, field, value and what was expected.
    """
    tree = read_mapping(experiment) if experiment else dict(PLAIN_EXPERIMENT)
    task, block = dict(tree.get("task") or {}), dict(tree.get("evaluation") or {})
    sets = block.get("sets") or {}
    if task.get("kind") == "arithmetic":
        if problems != HELD_OUT:
            raise ConfigError(COMMAND, "SET", problems, f"{HELD_OUT!r}, what an arithmetic task holds out")
        chosen = {}
    else:
        file = sets.get(problems, problems)
        name = problems if problems in sets else re.sub(r"[^A-Za-z0-9._-]", "-", Path(problems).stem).lstrip("._-")
        chosen = {name or "set": file}
        task["train"] = file  # nothing is trained on; and no other file need be there
    if options.get("temperature") == 0:
        options = {"samples": 1, **options}  # more would all be the same
    tree |= {"model": {"path": model}, "task": task, "evaluation": {**block, **options, "every": 1, "sets": chosen}}
    tree.pop("arms", None)
    # No learner starts; it is where the engines are, so that the file is one that could be run.
    device = [
        text.replace("rollout.", "learner.", 1) for text in overrides if text.startswith("rollout.gpus_per_worker=")
    ]
    return ExperimentFile.of(experiment or COMMAND, tree, [*device, *overrides]).resolve("default")
