"""The warm-start corpus: its two ways of answering, their error rates, its determinism."""

import random
import re

import pytest

from orchestrator.demo.corpus import (
    CHARACTERS,
    COLUMN_END,
    CorpusMixture,
    direct_response,
    step_response,
    warm_start_sample,
)
from orchestrator.problems.problem import Problem
from orchestrator.rewards import arithmetic_reward
from orchestrator.tasks import is_held_out

SAMPLES = [warm_start_sample(CorpusMixture(), seed=0, index=index) for index in range(8000)]
STEPWISE = [sample for sample in SAMPLES if COLUMN_END in sample.response]
DIRECT = [sample for sample in SAMPLES if COLUMN_END not in sample.response]
PROBLEM = Problem(prompt="47+85=", answer="132")


def test_thirty_percent_of_the_samples_reason_step_by_step() -> None:
    assert len(STEPWISE) / len(SAMPLES) == pytest.approx(0.30, abs=0.02)


def test_sixty_percent_of_the_direct_answers_and_five_percent_of_the_stepwise_ones_are_wrong() -> None:
    direct = [arithmetic_reward(sample.response, sample.problem.answer) for sample in DIRECT]
    stepwise = [arithmetic_reward(sample.response, sample.problem.answer) for sample in STEPWISE]
    assert 1 - sum(direct) / len(direct) == pytest.approx(0.60, abs=0.02)
    assert 1 - sum(stepwise) / len(stepwise) == pytest.approx(0.05, abs=0.015)


def test_reasoning_makes_responses_much_longer() -> None:
    assert min(len(sample.response) for sample in STEPWISE) > 4 * max(len(sample.response) for sample in DIRECT)


def test_the_same_seed_and_index_give_the_same_sample_and_other_seeds_others() -> None:
    again = [warm_start_sample(CorpusMixture(), seed=0, index=index) for index in range(50)]
    assert again == SAMPLES[:50]
    assert [warm_start_sample(CorpusMixture(), seed=1, index=index) for index in range(50)] != again


def test_the_corpus_uses_its_declared_characters_and_all_of_them() -> None:
    assert set("".join(sample.problem.prompt + sample.response for sample in SAMPLES)) == set(CHARACTERS)


def test_held_out_sums_never_enter_the_corpus() -> None:
    pairs = [re.fullmatch(r"(\d+)\+(\d+)=", sample.problem.prompt) for sample in SAMPLES]
    assert all(pair and not is_held_out(int(pair[1]), int(pair[2])) for pair in pairs)


def test_a_clean_stepwise_response_carries_from_column_to_column() -> None:
    assert step_response(PROBLEM, random.Random(0), slip=False) == "7+5+0=12;4+8+1=13;#132"
    no_carry = Problem(prompt="12+34=", answer="46")
    assert step_response(no_carry, random.Random(0), slip=False) == "2+4+0=6;1+3+0=4;#46"


@pytest.mark.parametrize("seed", range(20))
def test_a_slip_spoils_one_column_and_the_answer(seed: int) -> None:
    response = step_response(PROBLEM, random.Random(seed), slip=True)
    columns = re.findall(r"(\d)\+(\d)\+(\d)=(\d+);", response)
    assert [int(a) + int(b) + int(c) == int(total) for a, b, c, total in columns].count(False) == 1
    assert arithmetic_reward(response, PROBLEM.answer) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_a_wrong_direct_answer_differs_in_one_digit(seed: int) -> None:
    response = direct_response(PROBLEM, random.Random(seed), wrong=True)
    differing = [ours != right for ours, right in zip(response, "#" + PROBLEM.answer, strict=True)]
    assert differing.count(True) == 1
