"""The experiment that an evaluation outside a run stands for: a file's, or defaults, with another model and set."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.evaluation import HELD_OUT, TRAIN
from orchestrator.experiment_file import ExperimentFile
from orchestrator.problems.files import FORMATS
from orchestrator.yaml_files import read_mapping

COMMAND = "evenkeel evaluate"
LONGEST_NAME = 100  # characters
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
    where = experiment or COMMAND
    tree = read_mapping(experiment) if experiment else dict(PLAIN_EXPERIMENT)
    task, block = _mapping(tree, "task", where), _mapping(tree, "evaluation", where)
    sets = _mapping(block, "sets", where, above="evaluation.")
    if task.get("kind") == "arithmetic":
        if problems != HELD_OUT:
            raise ConfigError(COMMAND, "SET", problems, f"{HELD_OUT!r}, what an arithmetic task holds out")
        chosen = {}
    else:
        file = sets.get(problems, problems)
        chosen = {problems if problems in sets else _name_of(problems, sets): file}
        task["train"] = file  # nothing is trained on; and no other file need be there
    if options.get("temperature") == 0:
        options = {"samples": 1, **options}  # more would all be the same
    tree |= {"model": {"path": model}, "task": task, "evaluation": {**block, **options, "every": 1, "sets": chosen}}
    tree.pop("arms", None)
    # No learner starts; it is where the engines are, so that the file is one that could be run.
    device = [
        text.replace("rollout.", "learner.", 1) for text in overrides if text.startswith("rollout.gpus_per_worker=")
    ]
    return ExperimentFile.of(where, tree, [*device, *overrides]).resolve("default")


def _mapping(tree: Mapping[str, Any], key: str, file: str, above: str = "") -> dict[str, Any]:
    """A copy of what stands at a key; empty where nothing does."""
    value = tree.get(key)
    if not isinstance(value, Mapping | None):
        raise ConfigError(file, f"{above}{key}", value, "a mapping")
    return dict(value or {})


def _name_of(file: str, sets: Mapping[str, Any]) -> str:
    """What a file's set is called in the metrics: as the file, as far as that can be a name."""
    path = Path(file)
    if path.suffix not in FORMATS:
        known = f", or one of: {', '.join(sets)}" if sets else ""
        raise ConfigError(COMMAND, "SET", file, f"a .parquet or .jsonl file{known}")
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", path.name if path.stem == TRAIN else path.stem)
    return plain.lstrip("._-")[:LONGEST_NAME] or "set"
