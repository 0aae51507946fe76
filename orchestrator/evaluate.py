"""Evaluation of a model outside a run: its sampling engines alone, one set, the figures of it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from actors.messages import Response, SampleRequest
from cluster.session import session
from orchestrator.config import ExperimentConfig, ExperimentFile
from orchestrator.config_errors import ConfigError
from orchestrator.crew import engines
from orchestrator.evaluation import HELD_OUT, EvaluatedSet, Evaluation
from orchestrator.experiment import generate
from orchestrator.model_files import find_model
from orchestrator.rollout_log import evaluated_groups
from orchestrator.rollout_records import RolloutRow
from orchestrator.rollout_writer import write_file
from orchestrator.task_problems import TaskFiles, task_problems
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
    tree |= {"model": {"path": model}, "task": task, "evaluation": {**block, **options, "every": 1, "sets": chosen}}
    tree.pop("arms", None)
    return ExperimentFile.of(experiment or COMMAND, tree, overrides).resolve("default")


def evaluate(config: ExperimentConfig, seed: int, out: Path | None) -> EvaluatedSet:
    """Sample the set and grade it.

    Args:
        config: from `evaluation_config`.
        seed: of the responses.
        out: a Parquet file to keep everything in that was sampled.

    Raises:
        ConfigError: model, file, template or reward cannot be used.
        PlacementError, WorkerLost: as the engines' start and their work find them.
    """
    block = config.evaluation
    assert block is not None
    if out is not None and (out.suffix != ".parquet" or not out.parent.is_dir()):
        raise ConfigError(COMMAND, "--out", str(out), "a .parquet file in a folder that exists")
    model = find_model(config, COMMAND)
    files = TaskFiles.open(config, COMMAND)
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    longest = min(config.rollout.max_prompt_tokens, model.context_length - config.rollout.max_response_tokens)
    with task_problems(config, files, tokenizer, seed, longest) as problems:
        with session(config.cluster) as ray_session, engines(config, model, ray_session) as rollouts:

            def sample(requests: Sequence[SampleRequest]) -> list[tuple[Response, ...]]:
                return generate(rollouts, requests)

            evaluated = Evaluation(block, 0, seed, problems.evaluation, sample).evaluate(0, block.names()[0])
        if out is not None:
            groups = evaluated_groups(evaluated, problems.evaluation[evaluated.name])
            _write(out, [row for group in groups for row in group.rows(0, evaluated.name, tokenizer)])
    return evaluated


def _write(out: Path, rows: Sequence[RolloutRow]) -> None:
    try:
        write_file(out, rows)
    except OSError as error:
        raise ConfigError(COMMAND, "--out", str(out), f"a file that can be written ({error.strerror})") from None
