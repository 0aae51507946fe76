"""What decides a run's numbers: what may change when it goes on, what may not, and how that is told."""

import doctest
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import yaml_files
from orchestrator.checkpoints import fingerprint as module
from orchestrator.checkpoints.fingerprint import check_same, differing_fields, fingerprint
from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.experiment_file import merge

WRITTEN: dict[str, Any] = {
    "name": "e",
    "model": {"path": "embedded"},
    "task": {"kind": "arithmetic"},
    "rollout": {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": 8},
    "scheduler": {"kind": "constant", "lr": 1e-6},
    "steps": 10,
}
VALUES = st.none() | st.booleans() | st.integers(0, 3) | st.floats(allow_nan=False) | st.text(max_size=2)
KEYS = st.sampled_from(["steps", "learner", "workers", "kind", "lr", "a.b"])
TREES = st.dictionaries(
    KEYS, st.recursive(VALUES, lambda below: st.lists(below, max_size=2) | st.dictionaries(KEYS, below, max_size=3))
)


def resolved(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The config above with some changes, as a run stores it."""
    return ExperimentConfig.model_validate(merge(WRITTEN, changes)).model_dump(mode="json", exclude={"arms"})


def mistake(stored: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    with pytest.raises(ConfigError) as raised:
        check_same(stored, given, "e.yaml")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_examples_in_the_docstrings_are_right() -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 20},
        {"evaluation": {"every": 5}},
        {"tracking": {"uri": "sqlite:///other.db", "experiment": "x"}},
        {"cluster": {"address": "10.0.0.1:6379", "call_timeout_s": 9.0}},
        {"checkpoint": {"every": 7, "keep": 1}},
        {"checkpoint": None},
        {"learner": {"workers": 4, "cpus_per_worker": 2.0}},
        {"rollout": {"cpus_per_worker": 2.0}},
        {"seeds": [3, 4]},
        {"arms": {"a": {}}},
    ],
    ids=str,
)
def test_what_is_free_may_change(changes: dict[str, Any]) -> None:
    stored, given = resolved({}), resolved(changes)
    assert fingerprint(stored) == fingerprint(given)
    assert differing_fields(stored, given) == []
    check_same(stored, given, "e.yaml")


@pytest.mark.parametrize(
    ("changes", "field", "old", "new"),
    [
        ({"scheduler": {"lr": 2e-6}}, "scheduler.lr", 1e-6, 2e-6),
        ({"rollout": {"workers": 2}}, "rollout.workers", 1, 2),
        ({"rollout": {"temperature": 0.5}}, "rollout.temperature", 1.0, 0.5),
        ({"learner": {"tokens_per_microbatch": 99}}, "learner.tokens_per_microbatch", 8192, 99),
        ({"learner": {"optimizer": {"betas": [0.8, 0.9]}}}, "learner.optimizer.betas", [0.9, 0.95], [0.8, 0.9]),
        ({"name": "f"}, "name", "e", "f"),
        pytest.param(
            {"shadow": {"a.b": {"kind": "constant"}}},
            "shadow.a.b",
            MISSING,
            resolved({})["scheduler"],
            id="a new shadow",
        ),
    ],
    ids=str,
)
def test_what_decides_the_numbers_may_not(changes: dict[str, Any], field: str, old: Any, new: Any) -> None:
    stored, given = resolved({}), resolved(changes)
    assert fingerprint(stored) != fingerprint(given)
    assert differing_fields(stored, given) == [(field, old, new)]
    assert differing_fields(given, stored) == [(field, new, old)]


def test_of_another_kind_the_fields_that_both_have_are_compared() -> None:
    given = resolved({"scheduler": {"kind": "step", "lr": 2e-6, "period": 5}})
    assert differing_fields(resolved({}), given) == [
        ("scheduler.kind", "constant", "step"),
        ("scheduler.lr", 1e-6, 2e-6),
    ]


@given(TREES, TREES)
def test_fingerprints_are_equal_exactly_where_nothing_differs(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (differing_fields(one, other) == [])
    assert differing_fields(one, json.loads(json.dumps(one))) == []


def test_a_fingerprint_survives_the_file_that_the_config_is_kept_in() -> None:
    tree = resolved({"scheduler": {"lr": 1 / 3 * 1e-6}, "tracking": {"uri": "1e-6"}})
    text = yaml_files.dump(tree)
    assert fingerprint(yaml_files.parse_scalar(text, "config.yaml")) == fingerprint(tree)


def test_a_mistake_names_the_file_the_field_both_values_and_what_else_differs() -> None:
    assert mistake(resolved({}), resolved({"scheduler": {"lr": 2e-6}})) == (
        "e.yaml: scheduler.lr: got 2e-06, expected the value of the run that is resumed: 1e-06"
    )
    assert mistake(resolved({}), resolved({"rollout": {"group_size": 4}, "learner": {"loss": "constant"}})) == (
        "e.yaml: rollout.group_size: got 4, expected the value of the run that is resumed: 2"
        " (also different: learner.loss)"
    )


def test_a_value_that_is_missing_or_null_or_long_can_be_told() -> None:
    short, long = resolved({}), resolved({"shadow": {"a": {"kind": "constant"}}})
    assert mistake(short, long).endswith(", expected the value of the run that is resumed: not set")
    assert mistake(long, short).startswith("e.yaml: shadow.a: expected the value of the run that is resumed: {'lr'")
    assert len(mistake(long, short)) < 200
    quantized = resolved({"rollout": {"quantize": "int8"}})
    assert mistake(short, quantized).endswith("got 'int8', expected the value of the run that is resumed: null")


def test_a_checkpoint_from_before_a_field_existed_has_its_default() -> None:
    stored = resolved({})
    del stored["learner"]["grad_clip"], stored["rollout"]["max_rounds"], stored["stability"]
    check_same(stored, resolved({}), "e.yaml")
    assert mistake(stored, resolved({"learner": {"grad_clip": 2.0}})) == (
        "e.yaml: learner.grad_clip: got 2.0, expected the value of the run that is resumed: 1.0"
    )


def test_a_checkpoint_with_a_field_that_no_longer_exists_names_it() -> None:
    stored = {**resolved({}), "momentum": 0.9}
    assert mistake(stored, resolved({})) == "e.yaml: momentum: expected the value of the run that is resumed: 0.9"
