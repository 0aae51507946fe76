"""The `cluster:` block."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.config import ClusterConfig


def test_without_a_word_a_private_ray_is_started_and_every_wait_is_bounded() -> None:
    config = ClusterConfig()
    assert config.address is None
    assert 0 < config.placement_timeout_s < math.inf
    assert 0 < config.call_timeout_s < math.inf


@pytest.mark.parametrize("field", ["placement_timeout_s", "call_timeout_s"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "60", True, None])
def test_a_wait_that_is_no_positive_number_of_seconds_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        ClusterConfig.model_validate({field: value})


@pytest.mark.parametrize("values", [{"adress": "auto"}, {"address": 6379}])
def test_unknown_keys_and_other_types_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ClusterConfig.model_validate(values)


def test_whole_seconds_are_numbers_too() -> None:
    assert ClusterConfig(placement_timeout_s=30).placement_timeout_s == 30.0
