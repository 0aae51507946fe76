"""What a policy can look at: exactly what a run knows when it decides, and nothing that this run will never log."""

import doctest

import numpy as np
import pytest

from actors.config import GradientNoiseConfig, LearnerConfig
from actors.corrections import CorrectionSums, TokenTis
from actors.gradient_noise import HalfSums
from actors.lr_policies import ConstantConfig
from actors.messages import GradientReport, Response
from actors.scheduler import Scheduler
from actors.statistics import MismatchSums
from orchestrator import metric_keys
from orchestrator.evaluation import EvaluationConfig
from orchestrator.grading import Grade
from orchestrator.metric_keys import CORRECTION, NOISE, signal_keys
from orchestrator.sampling import Group, SampledBatch

PLAIN = LearnerConfig(gradient_noise=GradientNoiseConfig(every=None))
NOISY = LearnerConfig()
CORRECTED = LearnerConfig(gradient_noise=GradientNoiseConfig(every=None), correction=TokenTis())
EVERYTHING = LearnerConfig(correction=TokenTis())
EVALUATED = EvaluationConfig(every=5, samples=8)


def decided(config: LearnerConfig) -> set[str]:
    """The keys that a scheduler decides on at a step on which everything can be measured."""
    answers = tuple(
        Response(token_ids=np.zeros(2, np.int32), logprobs=np.zeros(2, np.float32), finished=True, weight_version=0)
        for _ in range(2)
    )
    grades = (Grade(score=0.0, reward=0.0), Grade(score=1.0, reward=1.0))
    groups = tuple(
        Group(prompt=i, prompt_ids=np.zeros(1, np.int32), responses=answers, grades=grades) for i in range(2)
    )
    report = GradientReport(
        mismatch=MismatchSums.from_logprobs([-1.0] * 8, [-1.1] * 8, [2] * 4),
        correction=CorrectionSums.of(TokenTis().weigh(np.full(8, -1.0), np.full(8, -1.1), [2] * 4), [2] * 4),
        halves=HalfSums(first_square=2.0, second_square=2.0, product=1.0, first_tokens=4, first_sequences=2),
        entropy_sum=1.0,
        loss=0.5,
        grad_square_sum=6.0,
    )
    scheduler = Scheduler(ConstantConfig().build(None), config)
    metrics = SampledBatch(kept=groups, generated=groups, rounds=1, prompts_dropped=0).metrics()
    order = scheduler.decide(0, [report], metrics, num_prompts=2)
    return {key for key in order.metrics if not key.startswith("scheduler/")}


@pytest.mark.parametrize("config", [NOISY, EVERYTHING], ids=["noise", "noise and correction"])
def test_the_keys_are_those_that_the_scheduler_decides_on(config: LearnerConfig) -> None:
    assert decided(config) == set(signal_keys(config, evaluation=None))


@pytest.mark.parametrize("evaluation", [None, EVALUATED], ids=["not evaluated", "evaluated"])
@pytest.mark.parametrize("config", [PLAIN, NOISY, CORRECTED, EVERYTHING])
def test_no_key_is_named_twice(config: LearnerConfig, evaluation: EvaluationConfig | None) -> None:
    keys = signal_keys(config, evaluation)
    assert len(keys) == len(set(keys))


def test_noise_keys_exist_only_when_noise_is_estimated() -> None:
    assert NOISE == ("gradient/signal", "gradient/noise", "gradient/noise_scale")
    assert set(signal_keys(NOISY, None)) - set(signal_keys(PLAIN, None)) == set(NOISE)
    seldom = LearnerConfig(gradient_noise=GradientNoiseConfig(every=50))
    assert signal_keys(seldom, None) == signal_keys(NOISY, None)


def test_correction_keys_exist_only_with_a_correction() -> None:
    assert set(signal_keys(CORRECTED, None)) - set(signal_keys(PLAIN, None)) == set(CORRECTION)
    assert not any(key.startswith("correction/") for key in signal_keys(NOISY, None))


def test_the_keys_of_the_evaluation_exist_only_with_evaluation() -> None:
    assert set(signal_keys(PLAIN, EVALUATED)) - set(signal_keys(PLAIN, None)) == set(EVALUATED.keys())
    assert not any(key.startswith("eval/") for key in signal_keys(EVERYTHING, None))


def test_what_is_known_only_after_the_decision_is_no_key() -> None:
    keys = signal_keys(EVERYTHING, EVALUATED)
    assert "gradient/update_norm_ratio" not in keys
    assert {key.partition("/")[0] for key in keys}.isdisjoint({"time", "throughput", "scheduler", "stability"})


def test_the_example_in_the_docstring_runs() -> None:
    results = doctest.testmod(metric_keys)
    assert results.attempted and not results.failed
