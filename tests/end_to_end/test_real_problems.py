"""Problems from files in real runs: GSM8K through data, template, rollout, reward, evaluation, records and export."""

import itertools
import json
import shutil
import statistics
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from real_run import ROOT, evenkeel
from transformers import AutoModelForCausalLM, AutoTokenizer

from orchestrator.model_files import embedded_model
from orchestrator.problems.config import ColumnsConfig
from orchestrator.problems.files import ProblemFiles
from orchestrator.problems.stream import ShuffledStream

GSM8K = ROOT / "tests" / "data" / "gsm8k" / "test.jsonl"
TEMPERATURE = 1.5
MAX_PROMPT_TOKENS = 256
PROBLEMS = 92  # of which 64 have a prompt that is short enough
SAMPLES = 8
LIMIT_S = 1.0

# One arm never earns anything. In the other a user's function scores, which for some responses hangs, kills its process
# or raises. The rate of its last step is too small to change any weight: what is exported is what that step has scored.
EXPERIMENT = f"""\
name: real
model: {{path: embedded}}
task: {{kind: regex, pattern: '(\\d)', train: train.jsonl, answer_pattern: '(\\d)$', template: "{{problem}}="}}
evaluation: {{every: 2, sets: {{test: test.jsonl}}, problems: {PROBLEMS}, samples: {SAMPLES}}}
record_rollouts: {{every: 1}}
export: {{}}
rollout:
  {{prompts_per_step: 4, group_size: 8, max_prompt_tokens: {MAX_PROMPT_TOKENS}, max_response_tokens: 32,
   temperature: {TEMPERATURE}, filter_flat_groups: true, max_rounds: 2}}
learner: {{workers: 1, tokens_per_microbatch: 1024}}
scheduler: {{kind: step, lr: 1.0e-4, period: 2, factor: 1.0e-30}}
steps: 3
arms:
  unsolved:
    task: {{kind: math, train: train.jsonl, answer_pattern: '#### (.+)', template: "{{problem}}="}}
    evaluation: {{problems: 8}}
    steps: 2
  checksum:
    learner: {{workers: 2}}
    task:
      kind: python
      function: rewards_of_checksums:score
      train: train.jsonl
      answer_pattern: '#### (.+)'
      template: "{{problem}}="
      limits: {{time_limit_s: {LIMIT_S}}}
"""
REWARD = """\
import os, signal, time, zlib

def score(response, answer, source, extra):
    number = zlib.crc32(response.encode()) % 8
    if number == 0:
        raise ValueError("no score")
    if source == "train" and number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if source == "train" and number in (2, 3):
        time.sleep(3600)
    return number / 8
"""
RAISED, KILLED, HUNG = "ValueError: no score", "its process was killed by signal 9 (SIGKILL)", "took longer than 1 s"


def scored_as(row: dict[str, Any]) -> tuple[float, str | None]:
    """Score and error that the function's source promises for a recorded response."""
    number = zlib.crc32(row["response"].encode()) % 8
    training = row["split"] == "train"
    errors = {0: RAISED, 1: KILLED if training else None, 2: HUNG if training else None, 3: HUNG if training else None}
    error = errors.get(number)
    return (0.0, error) if error else (number / 8, None)


def steps_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def recorded(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows


def by_problem(rows: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["problem"]].append(row)
    return groups


def counted(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The figures of an evaluation from what was recorded of it, without any code of ours."""
    groups = by_problem(rows).values()
    figures: dict[str, list[float]] = {"avg": [], "maj": [], "pass": []}
    for group in groups:
        votes: dict[str, list[float]] = defaultdict(list)
        for row in group:
            if row["extracted"] is not None:
                votes[row["extracted"]].append(row["score"])
        most = max(map(len, votes.values()), default=0)
        winners = [statistics.mean(scores) for scores in votes.values() if len(scores) == most]
        figures["avg"].append(statistics.mean(row["score"] for row in group))
        figures["maj"].append(statistics.mean(winners) if winners else 0.0)
        figures["pass"].append(max(row["score"] for row in group))
    measured = {f"{name}@{SAMPLES}": statistics.mean(values) for name, values in figures.items()}
    for name, values in figures.items():
        measured[f"{name}@{SAMPLES}_se"] = statistics.stdev(values) / len(values) ** 0.5
    measured["length_mean"] = statistics.mean(len(row["response_token_ids"]) for row in rows)
    measured["clip_ratio"] = statistics.mean(not row["finished"] for row in rows)
    measured["errors"] = sum(row["error"] is not None for row in rows)
    measured["prompts_dropped"] = PROBLEMS - len(groups)
    return measured


def evaluation_in(metrics: dict[str, Any]) -> dict[str, float]:
    return {key.removeprefix("eval/test/"): value for key, value in metrics.items() if key.startswith("eval/test/")}


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def problems() -> list[dict[str, Any]]:
    return [json.loads(line) for line in GSM8K.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, problems: list[dict[str, Any]]) -> Path:
    """Where both arms have run."""
    folder = tmp_path_factory.mktemp("real")
    shutil.copy(GSM8K, folder / "test.jsonl")
    write_rows(folder / "train.jsonl", [row | {"data_source": "train"} for row in problems])
    (folder / "rewards_of_checksums.py").write_text(REWARD)
    (folder / "real.yaml").write_text(EXPERIMENT)
    finished = evenkeel("compare", "real.yaml", cwd=folder)
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture(scope="module")
def unsolved(folder: Path) -> Path:
    return folder / "runs" / "real" / "unsolved" / "seed-0"


@pytest.fixture(scope="module")
def checksum(folder: Path) -> Path:
    return folder / "runs" / "real" / "checksum" / "seed-0"


@pytest.fixture(scope="module")
def evaluated(folder: Path, checksum: Path) -> dict[str, float]:
    """What `evenkeel evaluate` says of the exported model, scored otherwise; its responses are in again.parquet."""
    arguments = [str(checksum / "model"), "test", "--experiment", "real.yaml", "--out", "again.parquet", "--json"]
    finished = evenkeel("evaluate", *arguments, cwd=folder)
    assert finished.returncode == 0, finished.stderr
    measured: dict[str, float] = json.loads(finished.stdout)
    return measured


@pytest.mark.slow
def test_a_run_that_solves_nothing_samples_all_its_rounds_and_ends_with_the_model_it_began_with(unsolved: Path) -> None:
    rows = steps_of(unsolved)
    assert len(rows) == 2
    for row in rows:
        assert (row["sampling/rounds"], row["sampling/groups"], row["sampling/groups_kept"]) == (2, 8, 0)
        assert (row["sampling/flat_wrong"], row["sampling/empty_steps"], row["reward/errors"]) == (1, 1, 0)
        assert evaluation_in(row)[f"pass@{SAMPLES}"] == 0
    names = sorted(path.name for path in (unsolved / "rollouts").iterdir())
    assert names == ["test-000000.parquet", "test-000001.parquet"], "nothing is trained on"
    begun, exported = weights_of(embedded_model()), weights_of(unsolved / "model")
    assert begun.keys() == exported.keys()
    assert all(torch.equal(begun[name], exported[name]) for name in begun)


@pytest.mark.slow
def test_a_reward_that_hangs_kills_and_raises_costs_its_own_responses_and_about_the_time_limit(checksum: Path) -> None:
    rows = steps_of(checksum)
    errors: list[str] = []
    for row in rows:
        training = recorded(checksum / "rollouts" / f"train-{row['step']:06d}.parquet")
        assert [(response["score"], response["error"]) for response in training] == list(map(scored_as, training))
        found = [response["error"] for response in training if response["error"]]
        if row["sampling/groups_kept"] == row["sampling/groups"]:  # else more was scored than is recorded
            assert row["reward/errors"] == len(found)
            assert row["reward/mean"] == pytest.approx(statistics.mean(response["reward"] for response in training))
        assert row["time/score"] < row["sampling/rounds"] * LIMIT_S + 1
        errors += found
    assert sum(row["sampling/groups_kept"] == row["sampling/groups"] for row in rows) > 0
    assert set(errors) == {RAISED, KILLED, HUNG}
    assert errors.count(HUNG) > 2 * len(rows), "one after the other they would have taken longer"


@pytest.fixture(scope="module")
def prompts(problems: list[dict[str, Any]]) -> list[list[int]]:
    """Token ids of each problem's prompt."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    texts = [row["question"] + "=" for row in problems]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


@pytest.mark.slow
def test_training_follows_the_shuffled_stream_and_passes_over_prompts_that_are_too_long(
    folder: Path, checksum: Path, prompts: list[list[int]]
) -> None:
    files = ProblemFiles.open(str(folder / "train.jsonl"), ColumnsConfig(), "real.yaml", "task.train")
    stream = ShuffledStream(files, seed=0)
    steps = steps_of(checksum)
    num_groups = sum(int(row["sampling/groups"]) for row in steps)
    fitting = (number for number in itertools.count() if len(prompts[stream.row(number)]) <= MAX_PROMPT_TOKENS)
    numbers = list(itertools.islice(fitting, num_groups))
    groups = [
        group
        for step in range(len(steps))
        for group in by_problem(recorded(checksum / "rollouts" / f"train-{step:06d}.parquet")).items()
    ]
    assert [number for number, _ in groups] == [number for number in numbers if number in dict(groups)]
    assert len(groups) == 4 * len(steps)
    for number, rows in groups:
        assert all(row["prompt_token_ids"] == prompts[stream.row(number)] for row in rows)
    dropped = [row["sampling/prompts_dropped"] for row in steps]
    assert 0 < sum(dropped) == numbers[-1] + 1 - num_groups


@pytest.mark.slow
def test_an_evaluation_asks_the_first_problems_of_its_file_that_are_short_enough(
    checksum: Path, problems: list[dict[str, Any]], prompts: list[list[int]]
) -> None:
    rows = recorded(checksum / "rollouts" / "test-000000.parquet")
    fitting = [number for number in range(PROBLEMS) if len(prompts[number]) <= MAX_PROMPT_TOKENS]
    assert list(by_problem(rows)) == fitting
    assert len(fitting) == 64
    for row in rows:
        assert row["prompt_token_ids"] == prompts[row["problem"]]
        assert row["answer"] == problems[row["problem"]]["answer"].split("#### ")[1]


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 2])
def test_an_evaluation_in_a_run_says_what_its_recorded_responses_say(checksum: Path, step: int) -> None:
    rows = recorded(checksum / "rollouts" / f"test-{step:06d}.parquet")
    assert [(row["score"], row["error"]) for row in rows] == list(map(scored_as, rows))
    assert {len(group) for group in by_problem(rows).values()} == {SAMPLES}
    measured = evaluation_in(steps_of(checksum)[step])
    assert measured == pytest.approx(counted(rows), abs=1e-12)
    assert 0 < measured[f"avg@{SAMPLES}"] < measured[f"pass@{SAMPLES}"] < 1
    assert measured["errors"] > 0


@pytest.mark.slow
def test_an_exported_model_is_evaluated_outside_the_run_as_in_it(folder: Path, evaluated: dict[str, float]) -> None:
    rows = recorded(folder / "again.parquet")
    measured = evaluation_in(evaluated)
    assert len(measured) == len(evaluated)
    assert measured == pytest.approx(counted(rows), abs=1e-12)
    assert 0 < measured[f"maj@{SAMPLES}"] < measured[f"pass@{SAMPLES}"] < 1
    for row in rows:
        digits = [char for char in row["response"] if char.isdigit()]
        assert row["extracted"] == (digits[-1] if digits else None)
        assert row["score"] == (row["extracted"] == row["answer"])
        assert (row["train_logprobs"], row["advantage"]) == (None, None)


@pytest.mark.slow
def test_metrics_and_inspection_of_a_recorded_file_agree_with_the_step(checksum: Path) -> None:
    file = str(checksum / "rollouts" / "train-000001.parquet")
    step = {key: value for key, value in steps_of(checksum)[1].items() if key.startswith("mismatch/")}
    metrics = evenkeel("metrics", file, "--json", cwd=checksum)
    assert metrics.returncode == 0, metrics.stderr
    measured = json.loads(metrics.stdout)
    assert {f"mismatch/{key}": value for key, value in measured.items()} == pytest.approx(step, rel=1e-6, abs=1e-12)
    inspected = evenkeel("inspect", file, "--json", cwd=checksum)
    assert inspected.returncode == 0, inspected.stderr
    inspection = json.loads(inspected.stdout)
    assert inspection["metrics"] == pytest.approx(measured)
    assert inspection["steps"] == [1, 1]
    worst = max(
        abs(train - rollout)
        for row in recorded(Path(file))
        for train, rollout in zip(row["train_logprobs"], row["rollout_logprobs"], strict=True)
    )
    token = inspection["worst_tokens"][0]
    assert abs(token["train_logprob"] - token["rollout_logprob"]) == pytest.approx(worst)


@pytest.mark.slow
def test_the_recorded_advantages_are_those_of_the_groups_recorded_rewards(checksum: Path) -> None:
    for step in range(3):
        for group in by_problem(recorded(checksum / "rollouts" / f"train-{step:06d}.parquet")).values():
            rewards = [row["reward"] for row in group]
            assert [row["sample"] for row in group] == list(range(8))
            mean, deviation = statistics.mean(rewards), statistics.stdev(rewards)
            expected = [(reward - mean) / (deviation + 1e-6) for reward in rewards]
            assert [row["advantage"] for row in group] == pytest.approx(expected)


@pytest.mark.slow
def test_the_exported_model_has_learned_and_scores_as_the_learners_did(checksum: Path) -> None:
    begun, exported = weights_of(embedded_model()), weights_of(checksum / "model")
    assert not any(torch.equal(begun[name], exported[name]) for name in begun if "proj" in name)
    assert steps_of(checksum)[2]["gradient/update_norm_ratio"] == 0
    model = AutoModelForCausalLM.from_pretrained(checksum / "model", dtype=torch.float32)
    for row in recorded(checksum / "rollouts" / "train-000002.parquet"):
        assert logprobs_of(model, row) == pytest.approx(row["train_logprobs"], abs=1e-4)


def weights_of(folder: str | Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    return weights


def logprobs_of(model: Any, row: dict[str, Any]) -> list[float]:
    """Of a recorded response's tokens, by transformers alone."""
    prompt, response = row["prompt_token_ids"], row["response_token_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    chosen = torch.log_softmax(logits / TEMPERATURE, dim=-1)[range(len(response)), response]
    found: list[float] = chosen.tolist()
    return found


SMALL = """\
name: small
model: {path: embedded}
task: {kind: exact, train: train.jsonl, template: "{problem}="}
evaluation: {every: 1, sets: {test: train.jsonl}}
rollout: {prompts_per_step: 1, group_size: 2, max_response_tokens: 8}
scheduler: {kind: constant, lr: 1.0e-4}
steps: 1
"""


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["task.prompt_key=problem"],
            "train.jsonl: prompt_key: got 'problem', expected a column of the file; one of: question, answer",
        ),
        (["task.train=empty.jsonl"], "empty.jsonl: expected at least one problem; the file is empty"),
        (
            ["task.train=holes.jsonl"],
            "holes.jsonl: line 3: answer: expected an answer: a text that is not blank, a num",
        ),
        (
            ["task.train=[train.jsonl, gone.jsonl]"],
            "small.yaml: task.train: got 'gone.jsonl', expected a readable file",
        ),
        (["task.train=text.parquet"], "text.parquet: expected an intact Parquet file ("),
        (
            ["task.template=Solve this."],
            "small.yaml: --set task.template: got 'Solve this.', expected chat, plain, or a text with {problem} in it",
        ),
        (
            ["task.template=chat"],
            "small.yaml: task.template: got 'chat', expected plain, or a text with {problem} in it: the model's token",
        ),
        (
            ["task.kind=python", "task.function=rewards:score"],
            "small.yaml: task.function: got 'rewards:score', expected a function that a reward process can import (",
        ),
        (
            ["rollout.max_prompt_tokens=3"],
            "task: prompts: got '4 tokens in the shortest', expected at most 3: rollout.m",
        ),
        (["evaluation={every: 1}"], "small.yaml: --set evaluation.sets: expected at least one set: `name: file`, each"),
        (
            ["task={kind: arithmetic}"],
            "small.yaml: evaluation.sets: got {'test': 'train.jsonl'}, expected no files: this task holds problems out",
        ),
        (
            ["evaluation.sets={train: train.jsonl}"],
            "small.yaml: --set evaluation.sets.train: got 'train.jsonl', expected another name: this one stands for ",
        ),
        (
            ["evaluation.temperature=0", "evaluation.samples=2"],
            "small.yaml: --set evaluation.samples: got 2, expected 1 at temperature 0, where all samples are the same",
        ),
        (
            ["task.overlong.buffer=9"],
            "small.yaml: --set task.overlong.buffer: got 9, expected at most rollout.max_response_tokens: 8",
        ),
    ],
)
def test_what_a_run_cannot_use_is_told_in_one_line_before_anything_is_started(
    tmp_path: Path, overrides: list[str], said: str
) -> None:
    rows: list[dict[str, Any]] = [{"question": "1+1", "answer": 2}, {"question": "10+10", "answer": "20"}]
    write_rows(tmp_path / "train.jsonl", rows)
    write_rows(tmp_path / "holes.jsonl", [*rows, {"question": "2+2"}])
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "text.parquet").write_text("question,answer\n1+1,2\n")
    (tmp_path / "small.yaml").write_text(SMALL)
    options = [word for override in overrides for word in ("--set", override)]
    finished = evenkeel("run", "small.yaml", *options, cwd=tmp_path, RAY_TMPDIR=str(tmp_path / "ray"))
    assert finished.returncode == 2, finished.stderr
    [line] = finished.stderr.splitlines()
    assert line.startswith(f"evenkeel: {said}")
    assert finished.stdout == ""
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "ray").exists()
