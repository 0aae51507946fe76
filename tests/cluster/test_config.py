"""The `cluster:` block."""

import doctest
import math
from typing import Any

import pytest
from pydantic import ValidationError

import cluster.config
from cluster.config import ClusterConfig, RestartsConfig

ROLES = ["rollout", "learner", "scheduler"]


def test_without_a_word_a_private_ray_is_started_every_wait_is_bounded_and_every_role_is_restarted() -> None:
    config = ClusterConfig()
    assert config.address is None
    assert 0 < config.placement_timeout_s < math.inf
    assert 0 < config.silence_timeout_s < config.call_timeout_s < math.inf
    assert config.restarts.model_dump() == dict.fromkeys(ROLES, 3)


@pytest.mark.parametrize("field", ["placement_timeout_s", "call_timeout_s", "silence_timeout_s"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "60", True, None])
def test_a_wait_that_is_no_positive_number_of_seconds_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        ClusterConfig.model_validate({field: value})


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("value", [-1, 1.5, 1.0, "3", True, None])
def test_a_number_of_restarts_that_is_no_whole_number_is_refused(role: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=rf"restarts\.{role}"):
        ClusterConfig.model_validate({"restarts": {role: value}})


def test_a_role_that_is_not_restarted_at_all_leaves_the_others_as_they_are() -> None:
    config = ClusterConfig.model_validate({"restarts": {"learner": 0}})
    assert config.restarts == RestartsConfig(rollout=3, learner=0, scheduler=3)


@pytest.mark.parametrize(
    "values", [{"adress": "auto"}, {"address": 6379}, {"restarts": {"driver": 1}}, {"restarts": 3}, {"restarts": None}]
)
def test_unknown_keys_and_other_types_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ClusterConfig.model_validate(values)


def test_whole_seconds_are_numbers_too() -> None:
    assert ClusterConfig(placement_timeout_s=30).placement_timeout_s == 30.0


def test_the_examples_in_the_docstrings_run() -> None:
    results = doctest.testmod(cluster.config)
    assert results.attempted and not results.failed
