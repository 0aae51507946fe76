"""The problems of a run behind the model's tokenizer, and the rewards that grade them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.evaluation import HELD_OUT
from orchestrator.grading import Grader
from orchestrator.problem_set import ProblemSet
from orchestrator.problems.config import PLAIN
from orchestrator.problems.files import ProblemFiles
from orchestrator.problems.stream import ShuffledStream
from orchestrator.problems.templates import Template
from orchestrator.rewards.pool import RewardPool
from orchestrator.rewards.shaping import overlong_penalty
from orchestrator.task_config import ArithmeticTaskConfig
from orchestrator.tasks import ArithmeticTask

MADE_UP = 128  # problems of a made-up evaluation set
TRIES = 1000  # made-up problems after which it is clear that all are too long


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFiles:
    """The files of a task, opened and checked; nothing where problems are made up.

    Example:
        TaskFiles(named_in="gsm8k.yaml", train=ProblemFiles.open("train.parquet", columns, "gsm8k.yaml", "task.train"),
                  sets={"test": ProblemFiles.open("test.parquet", columns, "gsm8k.yaml", "evaluation.sets.test")})
    """

    named_in: str  # the experiment file, for messages
    train: ProblemFiles | None
    sets: Mapping[str, ProblemFiles]

    @classmethod
    def open(cls, config: ExperimentConfig, named_in: str) -> "TaskFiles":
        """Open and check all files that an experiment names.

        Args:
            config: one arm of the experiment.
            named_in: the experiment file, for messages.

        Raises:
            ConfigError: with file, row, column and what was expected.
        """
        task = config.task
        if isinstance(task, ArithmeticTaskConfig):
            return cls(named_in=named_in, train=None, sets={})
        named = config.evaluation.sets if config.evaluation else {}
        return cls(
            named_in=named_in,
            train=ProblemFiles.open(task.train, task, named_in, "task.train"),
            sets={
                name: ProblemFiles.open(path, task, named_in, f"evaluation.sets.{name}") for name, path in named.items()
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskProblems:
    """The problems of a run.

    Example:
        TaskProblems(training=problem_set, evaluation={"aime24": problem_set})
    """

    training: ProblemSet
    evaluation: Mapping[str, ProblemSet]


@contextmanager
def task_problems(
    config: ExperimentConfig, files: TaskFiles, tokenizer: Any, seed: int, context_length: int
) -> Iterator[TaskProblems]:
    """The problems of a run, with the processes that score its responses.

    Args:
        config: of the run.
        files: of its task.
        tokenizer: of the model, from transformers.
        seed: of the run.
        context_length: of the model, in tokens; a prompt that leaves no room in it for a response is passed over.

    Raises:
        ConfigError: the template or the reward cannot be used.
    """
    task = config.task
    max_prompt_tokens = min(config.rollout.max_prompt_tokens, context_length - config.rollout.max_response_tokens)

    def length_penalty(num_tokens: int) -> float:
        limit = config.rollout.max_response_tokens
        return overlong_penalty(task.overlong, num_tokens, limit) if task.overlong else 0.0

    with _pool(config, files.named_in) as pool:
        grader = Grader(tokenizer, pool.score, length_penalty)
        if isinstance(task, ArithmeticTaskConfig):
            made_up = ArithmeticTask(digits=task.digits, seed=seed)
            template = Template(PLAIN, tokenizer, files.named_in)
            num_held_out = (config.evaluation and config.evaluation.problems) or MADE_UP
            yield TaskProblems(
                training=ProblemSet(made_up.problem, TRIES, template.encode, grader, max_prompt_tokens),
                evaluation={
                    HELD_OUT: ProblemSet(made_up.validation, num_held_out, template.encode, grader, max_prompt_tokens)
                },
            )
            return
        assert files.train is not None
        template = Template(task.template, tokenizer, files.named_in)
        template.check(files.train.problem(0))
        stream = ShuffledStream(files.train, seed)
        yield TaskProblems(
            training=ProblemSet(stream.problem, len(files.train), template.encode, grader, max_prompt_tokens),
            evaluation={
                name: ProblemSet(file.problem, len(file), template.encode, grader, max_prompt_tokens)
                for name, file in files.sets.items()
            },
        )


def _pool(config: ExperimentConfig, named_in: str) -> RewardPool:
    task = config.task
    try:
        return RewardPool(task.reward(), task.limits, task.format)
    except ConfigError as error:
        raise ConfigError(named_in, error.field, error.value, error.expected) from None
