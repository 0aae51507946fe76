"""Held-out problems: when they are asked, with which seeds, and the mean of what their answers earn."""

import doctest
import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import orchestrator.evaluation
from actors.messages import Response, SampleRequest
from orchestrator.evaluation import EvaluatedSet, Evaluation, EvaluationConfig
from orchestrator.grading import Grade
from orchestrator.problem_set import ProblemSet, Prompt
from orchestrator.sampling import response_seed


def response(token: int) -> Response:
    return Response(
        token_ids=np.array([token], np.int32),
        logprobs=np.zeros(1, np.float32),
        finished=True,
        weight_version=0,
    )


class FakeProblems:
    """Problem n has the prompt [n]; a response earns its token."""

    def first(self, num_problems: int | None) -> list[Prompt]:
        return [Prompt(number=n, token_ids=np.array([n], np.int32)) for n in range(num_problems or 6)]

    def count(self, num_problems: int | None) -> int:
        return num_problems or 6

    def grade(self, numbers: Sequence[int], responses: Sequence[Sequence[Response]]) -> list[tuple[Grade, ...]]:
        scores = [[float(one.token_ids[0]) for one in some] for some in responses]
        return [tuple(Grade(score=score, reward=-1.0, answer=str(score)) for score in some) for some in scores]


class FakeEngine:
    """Answers problem n with the tokens n, n + 1, ..., one for each sample; remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[SampleRequest]] = []

    def __call__(self, requests: Sequence[SampleRequest]) -> list[tuple[Response, ...]]:
        self.calls.append(list(requests))
        return [
            tuple(response(int(request.prompt_ids[0]) + sample) for sample in range(len(request.seeds)))
            for request in requests
        ]

    def prompts(self) -> list[int]:
        return [int(request.prompt_ids[0]) for call in self.calls for request in call]

    def seeds(self) -> list[int]:
        return [seed for call in self.calls for request in call for seed in request.seeds]


def evaluation(
    engine: FakeEngine, *, every: int = 10, problems: int = 4, samples: int = 1, last_step: int = 25, seed: int = 0
) -> Evaluation:
    config = EvaluationConfig(every=every, problems=problems, samples=samples)
    return Evaluation(config, last_step, seed, {"held_out": cast(ProblemSet, FakeProblems())}, engine)


def test_it_is_due_at_multiples_and_at_the_last_step() -> None:
    asked = evaluation(FakeEngine(), every=10, last_step=25)
    assert [step for step in range(26) if asked.due(step)] == [0, 10, 20, 25]


def test_a_last_step_that_is_a_multiple_is_due_like_any_other() -> None:
    asked = evaluation(FakeEngine(), every=10, last_step=20)
    assert [step for step in range(21) if asked.due(step)] == [0, 10, 20]


@given(every=st.integers(1, 50), last_step=st.integers(0, 200))
def test_every_run_is_evaluated_at_its_first_and_at_its_last_step(every: int, last_step: int) -> None:
    asked = evaluation(FakeEngine(), every=every, last_step=last_step)
    assert asked.due(0)
    assert asked.due(last_step)


def test_the_metric_is_the_mean_reward_over_all_samples_of_all_problems() -> None:
    engine = FakeEngine()
    # Problems 0, 1 and 2 with two samples each earn 0 + 1, 1 + 2 and 2 + 3.
    metrics = evaluation(engine, problems=3, samples=2).run(0)
    assert metrics == pytest.approx(
        {
            "eval/held_out/avg@2": 9 / 6,
            "eval/held_out/avg@2_se": 1 / math.sqrt(3),
            "eval/held_out/maj@2": 9 / 6,
            "eval/held_out/maj@2_se": 1 / math.sqrt(3),
            "eval/held_out/pass@2": 2.0,
            "eval/held_out/pass@2_se": 1 / math.sqrt(3),
            "eval/held_out/length_mean": 1.0,
            "eval/held_out/clip_ratio": 0.0,
            "eval/held_out/errors": 0.0,
            "eval/held_out/prompts_dropped": 0.0,
        }
    )
    assert metrics.keys() == set(EvaluationConfig(every=10, samples=2).keys())
    assert engine.prompts() == [0, 1, 2]
    assert [len(request.seeds) for request in engine.calls[0]] == [2, 2, 2]


def test_the_key_tells_how_many_samples_it_is_the_mean_of() -> None:
    assert EvaluationConfig(every=10).keys()[0] == "eval/held_out/avg@1"
    assert EvaluationConfig(every=10, samples=32, sets={"aime24": "a.parquet"}).keys()[0] == "eval/aime24/avg@32"


def test_each_set_is_asked_on_its_own_at_the_temperature_asked_for_and_handed_over_as_it_was_sampled() -> None:
    engine = FakeEngine()
    config = EvaluationConfig(every=10, sets={"a": "a.parquet", "b": "b.parquet"}, temperature=0.0)
    problems = cast(ProblemSet, FakeProblems())
    kept: list[tuple[int, EvaluatedSet]] = []
    both = Evaluation(config, 25, 0, {"a": problems, "b": problems}, engine)
    metrics = both.run(10, lambda step, of_set: kept.append((step, of_set)))
    assert {key.split("/")[1] for key in metrics} == {"a", "b"}
    assert [len(call) for call in engine.calls] == [6, 6]
    assert {request.temperature for call in engine.calls for request in call} == {0.0}
    assert [(step, of_set.name) for step, of_set in kept] == [(10, "a"), (10, "b")]
    assert metrics == kept[0][1].metrics() | kept[1][1].metrics()
    assert len(set(engine.seeds())) == 12


def test_all_is_asked_in_one_call_so_that_the_engines_can_share_it() -> None:
    engine = FakeEngine()
    evaluation(engine, problems=100).run(0)
    assert [len(call) for call in engine.calls] == [100]


def test_every_sample_of_every_problem_step_and_run_has_a_seed_of_its_own() -> None:
    engine = FakeEngine()
    for seed in range(3):
        for step in range(4):
            evaluation(engine, problems=5, samples=2, seed=seed).run(step)
    assert len(set(engine.seeds())) == len(engine.seeds()) == 3 * 4 * 5 * 2


def test_the_seeds_depend_on_nothing_else() -> None:
    one, again = FakeEngine(), FakeEngine()
    evaluation(one, problems=5, samples=2, seed=3).run(20)
    later = evaluation(again, every=7, problems=5, samples=2, seed=3, last_step=900)
    later.run(10)
    later.run(20)
    assert again.seeds()[-10:] == one.seeds()


def test_no_seed_is_one_of_training() -> None:
    engine = FakeEngine()
    for step in range(4):
        evaluation(engine, problems=5, samples=2).run(step)
    training = {response_seed(0, step, prompt, sample) for step in range(4) for prompt in range(5) for sample in (0, 1)}
    assert training.isdisjoint(engine.seeds())


def test_the_problems_are_the_same_at_every_step_and_for_every_seed_of_a_run() -> None:
    engines = [FakeEngine() for _ in range(3)]
    evaluation(engines[0], seed=0).run(0)
    evaluation(engines[1], seed=0).run(20)
    evaluation(engines[2], seed=7).run(0)
    assert [engine.prompts() for engine in engines] == [[0, 1, 2, 3]] * 3


def test_the_example_in_the_docstring_runs() -> None:
    results = doctest.testmod(orchestrator.evaluation)
    assert results.attempted and not results.failed
