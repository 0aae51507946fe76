"""The problems of a run from real files, behind the embedded model's tokenizer, scored in real processes."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from actors.messages import Response, SampleRequest
from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.evaluation import Evaluation
from orchestrator.experiment_file import DEFAULT_ARM, ExperimentFile
from orchestrator.model_files import embedded_model
from orchestrator.problem_set import ProblemSet
from orchestrator.problems.stream import ShuffledStream
from orchestrator.task_problems import TRIES, TaskFiles, TaskProblems, task_problems

MAX_PROMPT_TOKENS = 8
LENGTHS = [3, 5, 8, 4, 12, 3, 9, 6, 2, 7]  # digits of each problem; its prompt has the equals sign too


def problem(number: int) -> str:
    """One that tells its number and has as many digits as `LENGTHS` says."""
    return str(number).rjust(LENGTHS[number], "1")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(embedded_model())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: two files of problems, of which the answers are the problems themselves."""
    monkeypatch.chdir(tmp_path)
    for name, numbers in {"train": range(10), "test": reversed(range(10))}.items():
        rows = [{"question": problem(number), "answer": problem(number)} for number in numbers]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


TASK = {"kind": "exact", "train": "train.jsonl", "template": "{problem}="}
MADE_UP = {"task": {"kind": "arithmetic", "digits": 2}, "evaluation": {"every": 1}}


def config(**blocks: Any) -> ExperimentConfig:
    """An experiment with some blocks written anew."""
    tree = {
        "name": "e",
        "model": {"path": "embedded"},
        "task": TASK,
        "evaluation": {"every": 1, "sets": {"test": "test.jsonl", "again": "train.jsonl"}},
        "rollout": {"prompts_per_step": 1, "group_size": 2, "max_response_tokens": 16},
        "scheduler": {"kind": "constant", "lr": 1e-6},
        "steps": 1,
    }
    return ExperimentFile.of("e.yaml", tree | blocks).resolve(DEFAULT_ARM)


def mistake(tokenizer: Any, of: ExperimentConfig) -> str:
    """What is said about a task before its problems are there."""
    with pytest.raises(ConfigError) as raised, open_problems(of, tokenizer):
        pass
    message = str(raised.value)
    assert "\n" not in message
    return message


def open_problems(
    of: ExperimentConfig, tokenizer: Any, seed: int = 0, max_prompt_tokens: int = MAX_PROMPT_TOKENS
) -> AbstractContextManager[TaskProblems]:
    return task_problems(
        of, TaskFiles.open(of, "e.yaml"), tokenizer, seed, max_prompt_tokens + of.rollout.max_response_tokens
    )


def response(tokenizer: Any, text: str) -> Response:
    ids = np.array(tokenizer(text)["input_ids"], np.int32)
    return Response(token_ids=ids, logprobs=np.zeros(len(ids), np.float32), finished=True, weight_version=0)


def texts(problems: ProblemSet, count: int) -> list[str]:
    return [problems.problem(number).text for number in range(count)]


@pytest.mark.parametrize("seed", [0, 3])
def test_training_goes_through_the_files_in_the_order_of_the_stream_of_its_seed(
    folder: Path, tokenizer: Any, seed: int
) -> None:
    of = config(task=TASK | {"train": ["train.jsonl", "test.jsonl"]})
    files = TaskFiles.open(of, "e.yaml")
    assert files.train is not None
    stream = ShuffledStream(files.train, seed)
    with task_problems(of, files, tokenizer, seed, MAX_PROMPT_TOKENS + of.rollout.max_response_tokens) as problems:
        assert texts(problems.training, 60) == [stream.problem(number).text for number in range(60)]
        epoch = texts(problems.training, 20)
    assert sorted(epoch) == sorted(2 * [problem(number) for number in range(10)])


def test_two_seeds_train_in_another_order_and_are_evaluated_in_the_same(folder: Path, tokenizer: Any) -> None:
    def orders(seed: int) -> tuple[list[str], list[str]]:
        with open_problems(config(), tokenizer, seed) as problems:
            return texts(problems.training, 10), texts(problems.evaluation["test"], 10)

    (first, tested), (second, tested_again) = orders(0), orders(1)
    assert first != second
    assert tested == tested_again == [problem(number) for number in reversed(range(10))]


def test_each_set_has_the_name_it_was_given_and_the_order_of_its_file(folder: Path, tokenizer: Any) -> None:
    with open_problems(config(), tokenizer) as problems:
        assert list(problems.evaluation) == ["test", "again"]
        assert texts(problems.evaluation["again"], 10) == [problem(number) for number in range(10)]


def test_of_the_first_problems_those_with_too_long_a_prompt_are_left_out_and_counted(
    folder: Path, tokenizer: Any
) -> None:
    of = config(evaluation={"every": 1, "problems": 7, "samples": 2, "sets": {"again": "train.jsonl"}})

    def sample(requests: Sequence[SampleRequest]) -> list[tuple[Response, ...]]:
        prompts = [tokenizer.decode(request.prompt_ids.tolist()) for request in requests]
        return [(response(tokenizer, prompt.rstrip("=")), response(tokenizer, "7")) for prompt in prompts]

    assert of.evaluation is not None
    with open_problems(of, tokenizer) as problems:
        evaluated = Evaluation(of.evaluation, 0, 0, problems.evaluation, sample).evaluate(0, "again")
    fitting = [number for number in range(7) if LENGTHS[number] + 1 <= MAX_PROMPT_TOKENS]
    assert [prompt.number for prompt in evaluated.prompts] == fitting == [0, 1, 3, 5]
    assert evaluated.prompts_dropped == 7 - len(fitting)
    metrics = evaluated.metrics()
    assert (metrics["eval/again/avg@2"], metrics["eval/again/pass@2"], metrics["eval/again/prompts_dropped"]) == (
        0.5,
        1.0,
        3.0,
    )


def test_when_the_first_problems_are_all_too_long_it_is_told_although_later_ones_are_not(
    folder: Path, tokenizer: Any
) -> None:
    with open_problems(config(), tokenizer, max_prompt_tokens=3) as problems:
        with pytest.raises(ConfigError) as raised:
            problems.evaluation["again"].first(3)
        assert [prompt.number for prompt in problems.evaluation["again"].first(9)] == [8]
    message = str(raised.value)
    assert message.startswith(
        "task: prompts: got 'more tokens in each of the first 3', expected at most 3: rollout.max"
    )


def test_a_prompt_is_the_problem_in_its_template(folder: Path, tokenizer: Any) -> None:
    with open_problems(config(task=TASK | {"template": "#{problem}=#"}), tokenizer) as problems:
        prompt = problems.evaluation["again"].draw(0)
        assert tokenizer.decode(prompt.token_ids.tolist()) == f"#{problem(0)}=#"
        assert prompt.token_ids.dtype == np.int32


def test_a_score_is_of_the_answer_and_a_reward_has_the_shaping_too(folder: Path, tokenizer: Any) -> None:
    of = config(task=TASK | {"overlong": {"buffer": 15, "penalty": 0.3}, "format": {"pattern": "^1", "bonus": 0.25}})
    said = [problem(1), "9" * 16, problem(1) + "0"]
    with open_problems(of, tokenizer) as problems:
        grades = problems.evaluation["again"].grade([1], [[response(tokenizer, text) for text in said]])
    assert [grade.score for grade in grades[0]] == [1.0, 0.0, 0.0]
    penalties = [0.3 * max(0, len(text) - 1) / 15 for text in said]
    bonuses = [0.25, 0.0, 0.25]
    assert [grade.reward for grade in grades[0]] == pytest.approx(
        [score - penalty + bonus for score, penalty, bonus in zip([1, 0, 0], penalties, bonuses, strict=True)]
    )


def test_a_function_of_the_users_is_found_in_the_working_directory(folder: Path, tokenizer: Any) -> None:
    (folder / "task_problems_reward.py").write_text(
        "def length(response, answer, source, extra):\n    return len(response) / len(answer)\n"
    )
    of = config(task=TASK | {"kind": "python", "function": "task_problems_reward:length"})
    with open_problems(of, tokenizer) as problems:
        ((grade,),) = problems.evaluation["again"].grade([1], [[response(tokenizer, "1")]])
    assert (grade.score, grade.answer, grade.error) == (1 / LENGTHS[1], None, None)


def test_made_up_problems_are_held_out_from_those_trained_on_and_the_same_for_every_seed(tokenizer: Any) -> None:
    def made_up(seed: int) -> TaskProblems:
        with open_problems(config(**MADE_UP), tokenizer, seed) as problems:
            return problems

    one, other = made_up(0), made_up(1)
    assert list(one.evaluation) == ["held_out"]
    assert texts(one.training, 50) != texts(other.training, 50)
    assert texts(one.evaluation["held_out"], 128) == texts(other.evaluation["held_out"], 128)
    operands = {frozenset(text.rstrip("=").split("+")) for text in texts(one.training, 500)}
    assert operands.isdisjoint(
        frozenset(text.rstrip("=").split("+")) for text in texts(one.evaluation["held_out"], 128)
    )


@pytest.mark.parametrize(("asked", "count"), [(None, 128), (5, 5), (300, 300)])
def test_as_many_problems_are_held_out_as_the_evaluation_asks_for(
    tokenizer: Any, asked: int | None, count: int
) -> None:
    of = config(task=MADE_UP["task"], evaluation={"every": 1, "problems": asked})
    with open_problems(of, tokenizer) as problems:
        assert len(problems.evaluation["held_out"].first(asked)) == count


def test_that_all_made_up_problems_are_too_long_is_noticed(tokenizer: Any) -> None:
    too_long = pytest.raises(ConfigError, match="got '6 tokens in the shortest', expected at most 5")
    with open_problems(config(**MADE_UP), tokenizer, max_prompt_tokens=5) as problems, too_long:
        problems.training.draw(TRIES)


def test_a_task_that_makes_its_problems_up_opens_no_file() -> None:
    assert TaskFiles.open(config(**MADE_UP), "e.yaml") == TaskFiles(named_in="e.yaml", train=None, sets={})


def test_without_an_evaluation_only_what_is_trained_on_is_opened(folder: Path) -> None:
    (folder / "test.jsonl").unlink()
    files = TaskFiles.open(config(evaluation=None), "e.yaml")
    assert files.train is not None
    assert (len(files.train), files.sets) == (10, {})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"task": TASK | {"train": "gone.jsonl"}},
            "e.yaml: task.train: got 'gone.jsonl', expected a readable",
        ),
        (
            {"evaluation": {"every": 1, "sets": {"test": "test.jsonl", "aime24": "aime24.csv"}}},
            "e.yaml: evaluation.sets.aime24: got 'aime24.csv', expected a .parquet or .jsonl file",
        ),
        (
            {"task": TASK | {"answer_key": "solution"}},
            "train.jsonl: answer_key: got 'solution', expected a column of the file; did you mean 'question'? one of: ",
        ),
        (
            {"task": TASK | {"template": "chat"}},
            "e.yaml: task.template: got 'chat', expected plain, or a text with {problem} in it: the model's ",
        ),
        (
            {"task": TASK | {"kind": "python", "function": "no_such_module:f"}},
            "e.yaml: task.function: got 'no_such_module:f', expected a function that a reward process can import (",
        ),
    ],
)
def test_what_cannot_be_used_is_told_with_the_experiment_and_the_field(
    folder: Path, tokenizer: Any, changes: dict[str, Any], said: str
) -> None:
    assert mistake(tokenizer, config(**changes)).startswith(said)
