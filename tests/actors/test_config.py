"""The blocks of model, rollout workers and learners: strict about types, and no learning rate anywhere."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from actors.config import LearnerConfig, ModelConfig, OptimizerConfig, RolloutConfig

ROLLOUT = {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": 8}


@pytest.mark.parametrize(("gpus", "device"), [(0.0, "cpu"), (1, "cuda"), (0.5, "cuda")])
def test_a_worker_runs_on_a_gpu_exactly_when_it_asks_for_one(gpus: float, device: str) -> None:
    assert RolloutConfig.model_validate({**ROLLOUT, "gpus_per_worker": gpus}).device == device
    assert LearnerConfig(gpus_per_worker=gpus).device == device


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workers", 0),
        ("workers", "1"),
        ("workers", True),
        ("workers", 1.0),
        ("temperature", 0.0),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("cpus_per_worker", -0.25),
        ("gpu_memory_utilization", 1.5),
        ("tensor_parallel_size", 0),
        ("dtype", "int8"),
        ("filter_flat_groups", 1),
        ("max_rounds", 0),
        ("group", 2),
    ],
)
def test_a_rollout_value_that_makes_no_sense_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        RolloutConfig.model_validate({**ROLLOUT, field: value})


@pytest.mark.parametrize("field", ROLLOUT)
def test_what_only_the_user_can_know_has_no_default(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        RolloutConfig.model_validate({key: value for key, value in ROLLOUT.items() if key != field})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("grad_clip", 0.0),
        ("loss", "mean"),
        ("advantage", "gae"),
        ("correction", {"kind": "magic"}),
        ("tokens_per_microbatch", 0),
        ("optimizer", {"kind": "sgd"}),
        ("attention", "flash"),
        ("activation_checkpointing", 1),
        ("compile", "yes"),
        ("offload", {"gradient": True}),
        ("lr", 1e-6),
    ],
)
def test_a_learner_value_that_makes_no_sense_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        LearnerConfig.model_validate({field: value})


def test_betas_may_be_written_as_a_list() -> None:
    assert OptimizerConfig.model_validate({"betas": [0.8, 0.9]}).betas == (0.8, 0.9)


@pytest.mark.parametrize("betas", [[0.9], [0.9, 0.95, 0.99], ["a", 0.9], [0.9, 1.0], [-0.1, 0.9], [0.9, math.nan]])
def test_betas_that_adamw_would_refuse_are_refused_here(betas: list[Any]) -> None:
    with pytest.raises(ValidationError, match="betas"):
        OptimizerConfig.model_validate({"betas": betas})


@pytest.mark.parametrize("field", ["lr", "learning_rate"])
def test_there_is_no_learning_rate_in_the_optimizer(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        OptimizerConfig.model_validate({field: 1e-6})


def test_a_model_needs_a_path() -> None:
    with pytest.raises(ValidationError, match="path"):
        ModelConfig(path="")
