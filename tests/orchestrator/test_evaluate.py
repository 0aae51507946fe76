"""What `evenkeel evaluate` refuses, before any engine is started; real evaluations are in tests/end_to_end."""

import json
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.evaluate import evaluate
from orchestrator.evaluation_file import evaluation_config


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file of two problems."""
    monkeypatch.chdir(tmp_path)
    rows = [{"question": "1" * length, "answer": 1} for length in (30, 20)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def config(*overrides: str, model: str = "embedded", file: str = "test.jsonl", **options: Any) -> ExperimentConfig:
    usual = ["task.template=plain", "rollout.max_response_tokens=16"]
    return evaluation_config(model, file, None, options, [*usual, *overrides])


def mistake(of: ExperimentConfig, out: Path | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        evaluate(of, 0, out)
    assert not ray.is_initialized()
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("out", ["out.csv", "out", "nowhere/out.parquet"])
def test_a_file_that_cannot_be_written_is_refused_first(folder: Path, out: str) -> None:
    said = mistake(config(file="gone.jsonl"), Path(out))
    assert said == f"evenkeel evaluate: --out: got '{out}', expected a .parquet file in a folder that exists"


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({"model": "./nowhere"}, "evenkeel evaluate: model.path: got './nowhere', expected 'embedded', a model folder"),
        ({"file": "gone.jsonl"}, "got 'gone.jsonl', expected a readable file (it is not there)"),
    ],
)
def test_a_model_or_a_file_that_is_not_there_is_refused(folder: Path, of: dict[str, str], said: str) -> None:
    assert said in mistake(config(**of))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "task.template=chat",
            "evenkeel evaluate: task.template: got 'chat', expected plain, or a text with {problem}",
        ),
        ("task.answer_key=solution", "test.jsonl: answer_key: got 'solution', expected a column of the file"),
        ("rollout.max_response_tokens=512", "evenkeel evaluate: rollout.max_response_tokens: got 512, expected less"),
        (
            "rollout.max_prompt_tokens=19",
            "task: prompts: got '20 tokens in the shortest', expected at most 19: rollout",
        ),
    ],
)
def test_what_the_problems_do_not_go_with_is_refused(folder: Path, override: str, said: str) -> None:
    assert mistake(config(override)).startswith(said)


def test_that_the_first_prompts_are_all_too_long_is_refused_although_later_ones_are_not(folder: Path) -> None:
    said = mistake(config("rollout.max_prompt_tokens=20", problems=1))
    assert said.startswith("task: prompts: got 'more tokens in each of the first 1', expected at most 20: rollout.max_")
