"""The rollout log: rows of training steps and of evaluations, and the learners' records back in their order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from actors.messages import Response, TokenRecord, TrainSequence
from orchestrator.batching import shard_batch
from orchestrator.config import RecordRolloutsConfig
from orchestrator.evaluation import EvaluatedSet
from orchestrator.grading import Grade, Grader
from orchestrator.model_files import embedded_model
from orchestrator.problem_set import ProblemSet, Prompt
from orchestrator.problems.problem import Problem
from orchestrator.rewards.scores import RewardItem, Score
from orchestrator.rollout_log import RolloutLog, in_order
from orchestrator.rollout_writer import RolloutWriter
from orchestrator.sampling import Group


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(embedded_model())


def problem(number: int) -> Problem:
    return Problem(prompt=f"{number}+1=", answer=str(number + 1), source="sums")


def nothing(items: Sequence[RewardItem]) -> list[Score]:
    raise AssertionError("what is recorded has been scored before")


def prompt(tokenizer: Any, number: int) -> Prompt:
    ids = tokenizer(problem(number).text, add_special_tokens=False)["input_ids"]
    return Prompt(number=number, token_ids=np.array(ids, np.int32))


def response(tokenizer: Any, text: str, finished: bool = True) -> Response:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] * finished
    logprobs = np.array([-place / 8 for place in range(1, len(ids) + 1)], np.float32)
    return Response(token_ids=np.array(ids, np.int32), logprobs=logprobs, finished=finished, weight_version=40)


def record(of: Response, advantages: Sequence[float]) -> TokenRecord:
    return TokenRecord(train_logprobs=of.logprobs - np.float32(0.5), advantages=np.array(advantages))


def written(
    folder: Path, tokenizer: Any, *, training: Any = (), evaluated: Any = ()
) -> dict[str, list[dict[str, Any]]]:
    """What a log makes of calls with these arguments: rows by file."""
    problems = ProblemSet(problem, 1000, lambda _: [], Grader(tokenizer, nothing), max_prompt_tokens=8)
    warnings: list[str] = []
    with RolloutWriter(folder, warnings.append) as writer:
        log = RolloutLog(RecordRolloutsConfig(every=10), writer, tokenizer, {"train": problems, "aime24": problems})
        for arguments in training:
            log.training(*arguments)
        for arguments in evaluated:
            log.evaluated(*arguments)
    assert warnings == []
    return {path.name: pq.read_table(path).to_pylist() for path in sorted(folder.iterdir())}


def test_every_step_that_the_interval_divides_is_due(tmp_path: Path, tokenizer: Any) -> None:
    with RolloutWriter(tmp_path, print) as writer:
        log = RolloutLog(RecordRolloutsConfig(every=3), writer, tokenizer, {})
        assert [step for step in range(10) if log.due(step)] == [0, 3, 6, 9]


def test_a_training_step_leaves_a_row_per_response_with_what_sampler_reward_and_learner_say(
    tmp_path: Path, tokenizer: Any
) -> None:
    responses = response(tokenizer, "#18"), response(tokenizer, "190", finished=False)
    group = Group(
        prompt=17,
        prompt_ids=prompt(tokenizer, 17).token_ids,
        responses=responses,
        grades=(Grade(score=1.0, reward=0.75, answer="18"), Grade(score=0.0, reward=-0.25, error="took too long")),
    )
    records = [record(responses[0], [0.5] * 4), record(responses[1], [0.1, 0.2, 0.6])]
    files = written(tmp_path, tokenizer, training=[(40, [group], records)])
    assert list(files) == ["train-000040.parquet"]
    first, second = files["train-000040.parquet"]
    assert first == {
        "step": 40,
        "split": "train",
        "problem": 17,
        "sample": 0,
        "source": "sums",
        "prompt": "17+1=",
        "response": "#18",
        "answer": "18",
        "extracted": "18",
        "prompt_token_ids": group.prompt_ids.tolist(),
        "response_token_ids": responses[0].token_ids.tolist(),
        "tokens": ["#", "1", "8", "<eos>"],
        "train_logprobs": [-0.625, -0.75, -0.875, -1.0],
        "rollout_logprobs": [-0.125, -0.25, -0.375, -0.5],
        "score": 1.0,
        "reward": 0.75,
        "advantage": 0.5,
        "error": None,
        "finished": True,
        "weight_version": 40,
    }
    assert (second["sample"], second["response"], second["tokens"]) == (1, "190", ["1", "9", "0"])
    assert (second["extracted"], second["error"], second["finished"]) == (None, "took too long", False)
    assert second["advantage"] == pytest.approx(0.3), "the mean, where it differs from token to token"


def test_the_records_of_a_step_go_to_its_groups_one_after_the_other(tmp_path: Path, tokenizer: Any) -> None:
    some = [response(tokenizer, text) for text in ("1", "22", "333", "4444")]
    groups = [
        Group(
            prompt=number,
            prompt_ids=prompt(tokenizer, number).token_ids,
            responses=tuple(some[2 * place : 2 * place + 2]),
            grades=(Grade(score=0.0, reward=0.0),) * 2,
        )
        for place, number in enumerate([5, 3])
    ]
    records = [record(one, [float(len(one.token_ids))] * len(one.token_ids)) for one in some]
    (rows,) = written(tmp_path, tokenizer, training=[(0, groups, records)]).values()
    assert [(row["problem"], row["sample"], row["response"], row["advantage"]) for row in rows] == [
        (5, 0, "1", 2.0),
        (5, 1, "22", 3.0),
        (3, 0, "333", 4.0),
        (3, 1, "4444", 5.0),
    ]


def test_an_evaluation_has_a_file_of_its_own_without_what_only_a_learner_knows(tmp_path: Path, tokenizer: Any) -> None:
    evaluated = EvaluatedSet(
        name="aime24",
        prompts=[prompt(tokenizer, 2), prompt(tokenizer, 9)],
        responses=[(response(tokenizer, "3"),), (response(tokenizer, "", finished=False),)],
        grades=[(Grade(score=1.0, reward=1.0, answer="3"),), (Grade(score=0.0, reward=0.0),)],
        prompts_dropped=1,
    )
    files = written(tmp_path, tokenizer, evaluated=[(20, evaluated), (21, evaluated)])
    assert list(files) == ["aime24-000020.parquet", "aime24-000021.parquet"]
    first, second = files["aime24-000020.parquet"]
    assert (first["split"], first["step"], first["problem"], first["answer"]) == ("aime24", 20, 2, "3")
    assert (second["problem"], second["prompt"], second["response"], second["tokens"]) == (9, "9+1=", "", [])
    assert [(row["train_logprobs"], row["advantage"]) for row in (first, second)] == [(None, None)] * 2


def test_a_response_without_tokens_has_the_advantage_zero(tmp_path: Path, tokenizer: Any) -> None:
    empty = response(tokenizer, "", finished=False)
    ids = prompt(tokenizer, 1).token_ids
    group = Group(prompt=1, prompt_ids=ids, responses=(empty,), grades=(Grade(score=0.0, reward=0.0),))
    ((row,),) = written(tmp_path, tokenizer, training=[(0, [group], [record(empty, [])])]).values()
    assert (row["advantage"], row["train_logprobs"], row["rollout_logprobs"]) == (0.0, [], [])


@given(
    sizes=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 20), st.integers(0, 30)), max_size=40),
    ranks=st.integers(1, 5),
    budget=st.integers(1, 200),
    halves=st.booleans(),
    whole_groups=st.booleans(),
)
def test_records_come_back_in_the_order_of_the_sequences_however_these_were_dealt_out(
    sizes: list[tuple[int, int, int]], ranks: int, budget: int, halves: bool, whole_groups: bool
) -> None:
    sequences = [
        TrainSequence(
            group=group,
            prompt_ids=np.zeros(prompt, np.int32),
            response_ids=np.full(length, place, np.int32),
            rollout_logprobs=np.zeros(length, np.float32),
            advantage=float(place),
        )
        for place, (group, prompt, length) in enumerate(sizes)
    ]
    shards = shard_batch(sequences, ranks, budget, halves=halves, whole_groups=whole_groups)
    kept = [
        [
            [
                TokenRecord(train_logprobs=one.response_ids.astype(np.float32), advantages=np.array([one.advantage]))
                for one in microbatch
            ]
            for microbatch in shard.microbatches
        ]
        for shard in shards
    ]
    records = in_order(sequences, shards, kept)
    assert [float(found.advantages[0]) for found in records] == [one.advantage for one in sequences]
    for found, one in zip(records, sequences, strict=True):
        assert found.train_logprobs.tolist() == one.response_ids.tolist()
