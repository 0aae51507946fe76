"""The importance of parameters, or why there is none."""

from typing import Any

import pytest

from orchestrator.config_errors import ConfigError
from sweeps.html_report.importance import importance, read_space


def test_shares_add_up_and_parameters_of_some_trials_are_left_out(make_study: Any) -> None:
    study = make_study(*range(12), (12, {"state": "failed", "value": None}))
    found = importance(study, read_space(study, "study.json"))
    assert (found.num_trials, found.left_out, found.problem) == (12, ("scheduler.ratio",), "")
    assert set(found.shares) == {"scheduler.kind", "scheduler.patience"}
    assert sum(found.shares.values()) == pytest.approx(1)
    assert list(found.shares.values()) == sorted(found.shares.values(), reverse=True)
    assert found == importance(study, read_space(study, "study.json"))


def test_what_was_set_by_hand_outside_the_space_counts_too(make_study: Any) -> None:
    params = {"scheduler.kind": "constant", "scheduler.patience": 40}
    study = make_study(*range(6), (6, {"params": params}))
    assert importance(study, read_space(study, "study.json")).num_trials == 7


def test_a_parameter_that_never_differs_has_no_share(make_study: Any) -> None:
    params = {"scheduler.kind": "length_triggered"}
    study = make_study(*((n, {"params": {**params, "scheduler.patience": 1 + n}}) for n in range(5)))
    shares = importance(study, read_space(study, "study.json")).shares
    assert shares == {"scheduler.patience": 1.0, "scheduler.kind": 0.0}


@pytest.mark.parametrize(
    ("trials", "told"),
    [
        ([], "It takes 2 complete trials with different values; there are 0."),
        ([(0, {"value": 0.5})], "It takes 2 complete trials with different values; there are 1."),
        (
            [(0, {"value": 0.5}), (1, {"value": 0.5})],
            "It takes 2 complete trials with different values; there are 2 with the same value.",
        ),
        (
            [(0, {"params": {}}), (1, {"params": {}})],
            "No parameter that all complete trials have differs between them.",
        ),
    ],
)
def test_too_little_to_compare_is_said(make_study: Any, trials: list[Any], told: str) -> None:
    study = make_study(*trials)
    found = importance(study, read_space(study, "study.json"))
    assert (dict(found.shares), found.problem) == ({}, told)


def test_a_space_that_cannot_be_used_is_named(make_study: Any) -> None:
    study = make_study(0, space={"scheduler.ratio": {"kind": "magic"}})
    with pytest.raises(ConfigError, match=r"^runs/s/study.json: space.scheduler.ratio: kind: got 'magic', expected"):
        read_space(study, "runs/s/study.json")
