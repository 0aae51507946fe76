"""Evaluation of a model outside a run: its sampling engines alone, one set, the figures of it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer

from cluster.session import session
from cluster.worker import WorkerLost
from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.crew.workers import engines
from orchestrator.evaluation import EvaluatedSet, Evaluation
from orchestrator.evaluation_file import COMMAND
from orchestrator.model_files import find_model
from orchestrator.rollout_log import evaluated_groups
from orchestrator.rollout_records import RolloutRow
from orchestrator.rollout_writer import write_file
from orchestrator.task_problems import TaskFiles, task_problems


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
    with task_problems(config, files, tokenizer, seed, model.context_length) as problems:
        problems.evaluation[block.names()[0]].first(block.problems)  # before the engines: some must be short enough
        with session(config.cluster) as ray_session, engines(config, model, ray_session, _tell) as sampling:
            evaluated = Evaluation(block, 0, seed, problems.evaluation, sampling.generate).evaluate(0, block.names()[0])
        if out is not None:
            groups = evaluated_groups(evaluated, problems.evaluation[evaluated.name])
            _write(out, [row for group in groups for row in group.rows(0, evaluated.name, tokenizer)])
    return evaluated


def _tell(lost: WorkerLost, remedy: str) -> None:
    print(f"evenkeel: warning: {lost}; {remedy}", file=sys.stderr)


def _write(out: Path, rows: Sequence[RolloutRow]) -> None:
    try:
        write_file(out, rows)
    except OSError as error:
        raise ConfigError(COMMAND, "--out", str(out), f"a file that can be written ({error.strerror})") from None
