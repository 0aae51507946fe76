"""Setting values in an experiment: kinds first, and what the new kind knows stays."""

import doctest
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps import trial_tree
from sweeps.trial_tree import set_params

TREE: dict[str, Any] = {
    "scheduler": {"kind": "length_triggered", "lr": 1e-6, "ratio": 1.5, "anchor": "surge"},
    "learner": {"correction": {"kind": "token_tis", "cap": 3.0}},
    "evaluation": None,
}


def test_keys_that_the_new_kind_knows_stay_and_the_others_fall_away() -> None:
    changed = set_params(TREE, {"scheduler.kind": "signal_triggered"})
    assert changed["scheduler"] == {"kind": "signal_triggered", "lr": 1e-6, "ratio": 1.5}
    assert changed["learner"] == TREE["learner"]


def test_the_same_kind_changes_nothing() -> None:
    assert set_params(TREE, {"scheduler.kind": "length_triggered"}) == TREE


def test_values_are_set_after_kinds_wherever_they_stand() -> None:
    params = {"scheduler.signal": "reward/mean", "scheduler.ratio": 2.0, "scheduler.kind": "signal_triggered"}
    block = {"kind": "signal_triggered", "lr": 1e-6, "ratio": 2.0, "signal": "reward/mean"}
    assert set_params(TREE, params)["scheduler"] == block


def test_a_kind_may_be_that_of_a_block_that_is_not_there() -> None:
    assert set_params({}, {"learner.correction.kind": "token_tis"}) == {
        "learner": {"correction": {"kind": "token_tis"}}
    }
    assert set_params(TREE, {"evaluation.every": 5})["evaluation"] == {"every": 5}


def test_a_kind_that_does_not_exist_is_left_for_the_schema_to_refuse() -> None:
    assert set_params(TREE, {"scheduler.kind": "magic"})["scheduler"] == {"kind": "magic"}


@pytest.mark.parametrize("kind", ["none", "token_mask"])
def test_no_key_of_another_kind_survives(kind: str) -> None:
    assert set_params(TREE, {"learner.correction.kind": kind})["learner"]["correction"] == {"kind": kind}


values = st.fixed_dictionaries(
    {},
    optional={
        "scheduler.kind": st.sampled_from(["length_triggered", "signal_triggered", "step", "constant"]),
        "scheduler.lr": st.floats(0, 1),
        "learner.correction.kind": st.sampled_from(["none", "token_tis"]),
        "rollout.temperature": st.floats(0.1, 2),
    },
)


@given(values)
def test_setting_is_repeatable_and_leaves_the_tree_as_it_was(params: dict[str, Any]) -> None:
    before = deepcopy(TREE)
    changed = set_params(TREE, params)
    assert before == TREE
    assert set_params(changed, params) == changed
    assert set_params(TREE, dict(reversed(params.items()))) == changed


def test_the_examples_in_the_docstrings_run() -> None:
    results = doctest.testmod(trial_tree)
    assert results.attempted and not results.failed
