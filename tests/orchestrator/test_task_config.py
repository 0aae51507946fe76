"""The `task:` block: what each kind of task is scored with, which files it names, and every mistake in one line."""

from typing import Annotated, Any

import pytest
from pydantic import Field, TypeAdapter

from orchestrator.config_errors import ConfigError
from orchestrator.experiment_file import ExperimentFile
from orchestrator.rewards.config import (
    ArithmeticReward,
    ExactReward,
    FormatConfig,
    LimitsConfig,
    MathReward,
    OverlongConfig,
    PythonReward,
    RegexReward,
    RewardConfig,
)
from orchestrator.task_config import FileTaskConfig, TaskConfig

TASK: TypeAdapter[TaskConfig] = TypeAdapter(TaskConfig)
FILE_TASK: TypeAdapter[FileTaskConfig] = TypeAdapter(Annotated[FileTaskConfig, Field(discriminator="kind")])
FILE_TASKS: dict[str, dict[str, Any]] = {
    "exact": {"ignore_case": True},
    "regex": {"pattern": r"answer: (\d+)"},
    "math": {},
    "python": {"function": "my_rewards:length"},
}
REWARDS: dict[str, RewardConfig] = {
    "exact": ExactReward(ignore_case=True),
    "regex": RegexReward(pattern=r"answer: (\d+)"),
    "math": MathReward(),
    "python": PythonReward(function="my_rewards:length"),
}


def block(kind: str, **changes: Any) -> dict[str, Any]:
    return {"kind": kind, "train": "train.parquet", **FILE_TASKS[kind], **changes}


def mistake(task: Any) -> str:
    """The message about an experiment with that task, without the file's name."""
    tree = {
        "name": "e",
        "model": {"path": "embedded"},
        "task": task,
        "rollout": {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": 8},
        "scheduler": {"kind": "constant", "lr": 1e-6},
        "steps": 10,
    }
    with pytest.raises(ConfigError) as raised:
        ExperimentFile.of("e.yaml", tree)
    message = str(raised.value)
    assert "\n" not in message
    return message.removeprefix("e.yaml: ")


@pytest.mark.parametrize("kind", FILE_TASKS)
def test_a_task_of_files_is_scored_with_the_reward_of_its_kind_and_nothing_else_of_the_block(kind: str) -> None:
    task = TASK.validate_python(block(kind, answer_pattern="#### (.+)", prompt_key="question"))
    assert task.reward() == REWARDS[kind]


@pytest.mark.parametrize("kind", FILE_TASKS)
def test_one_file_or_several_are_trained_on_one_after_the_other(kind: str) -> None:
    one = FILE_TASK.validate_python(block(kind))
    several = FILE_TASK.validate_python(block(kind, train=["b.parquet", "a.jsonl"]))
    assert one.train == ["train.parquet"]
    assert several.train == ["b.parquet", "a.jsonl"]


def test_made_up_sums_are_scored_character_by_character() -> None:
    task = TASK.validate_python({"kind": "arithmetic"})
    assert task.reward() == ArithmeticReward()
    assert task.model_dump() == {
        "kind": "arithmetic",
        "digits": 3,
        "limits": LimitsConfig().model_dump(),
        "overlong": None,
        "format": None,
    }


@pytest.mark.parametrize("kind", FILE_TASKS)
def test_what_is_not_written_neither_shapes_a_reward_nor_names_a_column(kind: str) -> None:
    task = FILE_TASK.validate_python(block(kind))
    assert (task.overlong, task.format, task.limits) == (None, None, LimitsConfig())
    assert (task.prompt_key, task.answer_key, task.answer_pattern, task.template) == (None, None, None, "chat")


@pytest.mark.parametrize("kind", ["arithmetic", *FILE_TASKS])
def test_shaping_and_limits_belong_to_every_kind(kind: str) -> None:
    shaped = {
        "overlong": {"buffer": 16, "penalty": 0.5},
        "format": {"pattern": "^#", "bonus": 0.1},
        "limits": {"time_limit_s": 2, "workers": 3},
    }
    task = TASK.validate_python({**(block(kind) if kind in FILE_TASKS else {"kind": kind}), **shaped})
    assert task.overlong == OverlongConfig(buffer=16, penalty=0.5)
    assert task.format == FormatConfig(pattern="^#", bonus=0.1)
    assert task.limits == LimitsConfig(time_limit_s=2, workers=3)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({}, "task.kind: expected a kind out of 'arithmetic', 'exact', 'regex', 'math', 'python': it is missing"),
        ("math", "task: got 'math', expected a mapping"),
        ({"kind": "arithmetic", "digits": 1}, "task.digits: got 1, expected greater than or equal to 2"),
        ({"kind": "arithmetic", "train": "a.jsonl"}, "task.train: got 'a.jsonl', expected a known key"),
        ({"kind": "math"}, "task.train: expected a value: it is missing"),
        (block("math", train=""), "task.train: got '', expected the name of a file, or a list of them"),
        (block("math", train=[]), "task.train: got [], expected the name of a file, or a list of them"),
        (block("math", train=7), "task.train: got 7, expected the name of a file, or a list of them"),
        (block("math", train=["a.jsonl", 7]), "task.train: got ['a.jsonl', 7], expected the name of a file, or a"),
        (block("math", train=["a.jsonl", ""]), "task.train: got ['a.jsonl', ''], expected the name of a file, or a"),
        (block("math", pattern="x"), "task.pattern: got 'x', expected a known key"),
        (block("math", prompt_kye="question"), "task.prompt_kye: got 'question', expected a known key; did you mean"),
        (block("math", template="Solve this."), "task.template: got 'Solve this.', expected chat, plain, or a text"),
        (block("math", answer_pattern="("), "task.answer_pattern: got '(', expected a regular expression"),
        ({"kind": "regex", "train": "a.jsonl"}, "task.pattern: expected a value: it is missing"),
        (block("regex", pattern="("), "task.pattern: got '(', expected a regular expression"),
        (block("python", function="my_rewards.length"), "task.function: got 'my_rewards.length', expected text that"),
        (block("exact", ignore_case="yes"), "task.ignore_case: got 'yes', expected a valid boolean"),
        (block("math", limits={"time_limit_s": 0}), "task.limits.time_limit_s: got 0, expected greater than or equal"),
        (block("math", limits={"time_limit": 1}), "task.limits.time_limit: got 1, expected a known key; did you mean"),
        (block("math", overlong={"buffer": 0}), "task.overlong.buffer: got 0, expected greater than or equal to 1"),
        (block("math", overlong={}), "task.overlong.buffer: expected a value: it is missing"),
        (block("math", format={"pattern": "x"}), "task.format.bonus: expected a value: it is missing"),
    ],
)
def test_a_mistake_in_a_task_is_told_with_field_value_and_expectation(task: Any, said: str) -> None:
    assert mistake(task).startswith(said)
