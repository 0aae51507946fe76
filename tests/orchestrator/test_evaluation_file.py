"""The settings of an evaluation outside a run: an experiment's or defaults, with another model, set and options."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator import yaml_files
from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.evaluation import EvaluationConfig
from orchestrator.evaluation_file import evaluation_config
from orchestrator.task_config import ArithmeticTaskConfig, MathTaskConfig

TREE: dict[str, Any] = {
    "name": "e",
    "model": {"path": "Qwen/Qwen2.5-0.5B-Instruct"},
    "task": {"kind": "math", "train": ["train.parquet"], "template": "{problem}=", "answer_pattern": "#### (.+)"},
    "evaluation": {
        "every": 20,
        "sets": {"test": "test.parquet", "aime24": "aime.parquet"},
        "problems": 256,
        "samples": 4,
    },
    "rollout": {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": 8, "temperature": 0.7},
    "scheduler": {"kind": "length_triggered", "lr": 1e-6},
    "steps": 10,
    "arms": {"baseline": {"scheduler": {"kind": "constant", "lr": 1e-6}}},
}


@pytest.fixture
def file(tmp_path: Path) -> str:
    return experiment(tmp_path, {})


def experiment(folder: Path, changes: dict[str, Any]) -> str:
    (folder / "e.yaml").write_text(yaml_files.dump(TREE | changes))
    return str(folder / "e.yaml")


def plain(problems: str, *overrides: str, **options: Any) -> ExperimentConfig:
    """Of the embedded model, without an experiment."""
    return evaluation_config("embedded", problems, None, options, overrides)


def evaluation_of(config: ExperimentConfig) -> EvaluationConfig:
    assert config.evaluation is not None
    return config.evaluation


def mistake(*arguments: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        evaluation_config(*arguments)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_without_an_experiment_a_file_is_answered_as_mathematics() -> None:
    config = plain("data/aime_2024.parquet")
    assert config.model.path == "embedded"
    assert config.task == MathTaskConfig(kind="math", train=["data/aime_2024.parquet"])
    assert evaluation_of(config) == EvaluationConfig(every=1, sets={"aime_2024": "data/aime_2024.parquet"})
    assert evaluation_of(config).keys()[0] == "eval/aime_2024/avg@1"


def test_an_experiment_says_how_its_set_is_asked_and_scored(file: str) -> None:
    config = evaluation_config("runs/e/model", "aime24", file, {}, [])
    assert config.model.path == "runs/e/model"
    assert evaluation_of(config) == EvaluationConfig(
        every=1, sets={"aime24": "aime.parquet"}, problems=256, samples=4, temperature=None
    )
    assert isinstance(config.task, MathTaskConfig)
    assert (config.task.template, config.task.answer_pattern) == ("{problem}=", "#### (.+)")
    assert (config.rollout.temperature, config.arms) == (0.7, {})
    assert config.task.train == ["aime.parquet"], "nothing is trained on: no other file need be there"


def test_a_file_that_the_experiment_does_not_name_is_asked_as_its_sets_are(file: str) -> None:
    config = evaluation_config("embedded", "olympiad.jsonl", file, {}, [])
    assert evaluation_of(config).sets == {"olympiad": "olympiad.jsonl"}
    assert evaluation_of(config).samples == 4


def test_options_win_over_the_experiment_and_set_over_both(file: str) -> None:
    options = {"samples": 16, "temperature": 0.5, "problems": 30}
    config = evaluation_config("embedded", "test", file, options, ["evaluation.samples=2", "rollout.workers=3"])
    block = evaluation_of(config)
    assert (block.samples, block.temperature, block.problems, config.rollout.workers) == (2, 0.5, 30, 3)


def test_the_likeliest_token_is_asked_for_once(file: str) -> None:
    block = evaluation_of(evaluation_config("embedded", "test", file, {"temperature": 0.0}, []))
    assert (block.temperature, block.samples) == (0.0, 1)
    said = mistake("embedded", "test", file, {"temperature": 0.0, "samples": 8}, [])
    assert said == f"{file}: evaluation.samples: got 8, expected 1 at temperature 0, where all samples are the same"


def test_engines_on_gpus_are_settings_that_a_run_could_have() -> None:
    config = plain("a.jsonl", "rollout.gpus_per_worker=1")
    assert config.rollout.device == config.learner.device == "cuda"


@pytest.mark.parametrize("changes", [{"evaluation": None}, {"evaluation": {"every": 1}}], ids=["no block", "no sets"])
def test_made_up_problems_are_evaluated_on_those_that_are_held_out(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = experiment(tmp_path, {"task": {"kind": "arithmetic"}, **changes})
    config = evaluation_config("embedded", "held_out", file, {"samples": 2}, [])
    assert config.task == ArithmeticTaskConfig(kind="arithmetic")
    assert evaluation_of(config) == EvaluationConfig(every=1, samples=2)
    said = mistake("embedded", "test.jsonl", file, {}, [])
    assert said == ("evenkeel evaluate: SET: got 'test.jsonl', expected 'held_out', what an arithmetic task holds out")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("train.jsonl", "train.jsonl"),  # `train` stands for what is trained on
        ("data/train-00000-of-00001.parquet", "train-00000-of-00001"),
        ("~/aime 2024 (I).parquet", "aime-2024--I-"),
        ("_hidden.jsonl", "hidden"),
        ("数学.jsonl", "set"),
        ("x" * 200 + ".jsonl", "x" * 100),
    ],
)
def test_a_set_is_called_as_its_file_as_far_as_that_can_be_a_name(file: str, name: str) -> None:
    assert evaluation_of(plain(file)).sets == {name: file}


@pytest.mark.parametrize("written", [{"task": "math"}, {"evaluation": 3}, {"evaluation": {"every": 1, "sets": ["a"]}}])
def test_a_block_that_is_no_mapping_is_told_with_the_experiment(tmp_path: Path, written: dict[str, Any]) -> None:
    file = experiment(tmp_path, written)
    assert mistake("embedded", "test", file, {}, []).endswith(", expected a mapping")
    assert mistake("embedded", "test", file, {}, []).startswith(f"{file}: {next(iter(written))}")


def test_what_is_neither_a_set_nor_a_file_is_told_with_the_sets_there_are(file: str) -> None:
    said = mistake("embedded", "aime25", file, {}, [])
    assert said == "evenkeel evaluate: SET: got 'aime25', expected a .parquet or .jsonl file, or one of: test, aime24"
    assert mistake("embedded", "aime25", None, {}, []).endswith("got 'aime25', expected a .parquet or .jsonl file")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("embedded", "a.jsonl", "gone.yaml", {}, []),
            "gone.yaml: expected a readable file (No such file or directory)",
        ),
        (
            ("embedded", "a.jsonl", None, {}, ["task.pattern=x"]),
            "evenkeel evaluate: --set task.pattern: got 'x', expected a known key",
        ),
        (
            ("embedded", "a.jsonl", None, {"temperature": -1.0}, []),
            "evenkeel evaluate: evaluation.temperature: got -1.0, expected greater than or equal to 0",
        ),
        (("", "a.jsonl", None, {}, []), "evenkeel evaluate: model.path: got '', expected text of 1 or more characters"),
    ],
)
def test_other_mistakes_are_told_as_in_an_experiment(arguments: tuple[Any, ...], said: str) -> None:
    assert mistake(*arguments).startswith(said)
