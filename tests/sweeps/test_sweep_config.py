"""The sweep file by itself: defaults, and every mistake that shows without the experiment."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.config_errors import describe
from orchestrator.experiment_file import merge
from sweeps.sweep_config import NOT_IN_SPACE, SweepConfig

TREE: dict[str, Any] = {
    "name": "thresholds",
    "experiment": "e.yaml",
    "space": {
        "scheduler.kind": {"kind": "categorical", "choices": ["length_triggered", "signal_triggered"]},
        "scheduler.ratio": {"kind": "float", "low": 1.2, "high": 3.0},
        "scheduler.patience": {"kind": "int", "low": 1, "high": 5, "when": {"scheduler.kind": "length_triggered"}},
    },
    "objective": {"metric": "reward/mean"},
    "trials": 16,
}
PATIENCE = "space.scheduler.patience"


def mistake(changes: dict[str, Any]) -> str:
    """The message about the valid tree with these changes."""
    tree = merge(TREE, changes)
    with pytest.raises(ValidationError) as raised:
        SweepConfig.model_validate(tree)
    message = str(describe(raised.value, SweepConfig, tree, "s.yaml", ".".join))
    assert "\n" not in message
    return message.removeprefix("s.yaml: ")


def test_what_a_file_need_not_say() -> None:
    config = SweepConfig.model_validate(TREE)
    assert config.model_dump(exclude={"name", "experiment", "space", "trials", "objective"}) == {
        "arm": None,
        "changes": {},
        "constraints": [],
        "sampler": {"kind": "tpe", "seed": 0, "startup_trials": 8},
        "pruner": {"kind": "none"},
        "prune_on_collapse": True,
        "seeds": None,
        "parallel": 1,
        "storage": None,
        "enqueue": [],
        "sharing": {"enabled": "auto", "every": 5, "forks_from": "any"},
    }
    expected = {"metric": "reward/mean", "last": 3, "aggregate": "mean", "direction": "maximize"}
    assert config.objective.model_dump() == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": {"kind": "random", "seed": 7}},
        {"pruner": {"kind": "median", "startup_trials": 2, "warmup_steps": 10}},
        {"pruner": {"kind": "percentile", "percentile": 10}},
        {"enqueue": [{"scheduler.ratio": 2}, {}, {"scheduler.patience": 1}]},
        {"enqueue": [{"scheduler.ratio": 2.0, "scheduler.kind": "length_triggered", "scheduler.patience": 1}]},
        {"space": {"scheduler.patience": {"when": {"scheduler.kind": ["length_triggered", "signal_triggered"]}}}},
        {"storage": "postgresql://evenkeel@localhost/studies", "seeds": [0, 1], "parallel": 2},
        {"constraints": [{"metric": "reward/mean", "at_most": 1, "aggregate": how} for how in ("p5", "p50", "p95")]},
    ],
)
def test_what_a_file_may_say(changes: dict[str, Any]) -> None:
    SweepConfig.model_validate(merge(TREE, changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trails": 1}, "trails: got 1, expected a known key; did you mean 'trials'?"),
        (
            {"pruner": {"kind": "percentile", "percentile": 120}},
            "pruner.percentile: got 120, expected less than or equal",
        ),
        ({"trials": 0}, "trials: got 0, expected greater than or equal to 1"),
        ({"trials": 1.5}, "trials: got 1.5, expected a valid integer"),
        ({"parallel": 0}, "parallel: got 0, expected greater than or equal to 1"),
        ({"seeds": []}, "seeds: got [], expected a list of 1 or more"),
        ({"seeds": [1, 1]}, "seeds: got [1, 1], expected seeds that differ from each other"),
        ({"seeds": [-1]}, "seeds.0: got -1, expected greater than or equal to 0"),
        ({"name": "a/b"}, "name: got 'a/b', expected a name of up to 100 letters"),
        ({"space": 3}, "space: got 3, expected a mapping"),
        ({"objective": {"metrik": "a"}}, "objective.metrik: got 'a', expected a known key; did you mean 'metric'?"),
        ({"objective": {"aggregate": "p95"}}, "objective.aggregate: got 'p95', expected 'mean', 'median', 'min' or"),
        ({"objective": {"last": 0}}, "objective.last: got 0, expected greater than or equal to 1"),
        ({"objective": {"direction": "up"}}, "objective.direction: got 'up', expected 'maximize' or 'minimize'"),
        ({"sampler": {"kind": "grid"}}, "sampler.kind: got 'grid', expected a kind out of 'tpe', 'random'"),
        ({"sampler": {"kind": "random", "startup_trials": 3}}, "sampler.startup_trials: got 3, expected a known key"),
        ({"sampler": {"seed": None, "kind": "tpe"}}, "sampler.seed: got null, expected a valid integer"),
        ({"pruner": {"kind": "hyperband"}}, "pruner.kind: got 'hyperband', expected a kind out of 'none', 'median'"),
        ({"sharing": {"enabled": "always"}}, "sharing.enabled: got 'always', expected 'auto', True or False"),
        ({"sharing": {"forks_from": "all"}}, "sharing.forks_from: got 'all', expected 'any' or 'baseline'"),
        (
            {"constraints": [{"metric": "a"}]},
            "constraints.0: got {'metric': 'a'}, expected a constraint with either at_most or at_least",
        ),
        (
            {"constraints": [{"metric": "a", "at_most": 1}] * 2},
            "constraints.1: got {'metric': 'a', 'at_most': 1}, expected constraints that differ from each other",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(changes: dict[str, Any], said: str) -> None:
    assert mistake(changes).startswith(said)


@pytest.mark.parametrize(
    ("dimension", "said"),
    [
        ({"low": 9}, f"{PATIENCE}.low: got 9, expected at most high, which is 5"),
        ({"lo": 9}, f"{PATIENCE}.lo: got 9, expected a known key; did you mean 'low'?"),
        ({"low": 0, "log": True}, f"{PATIENCE}.low: got 0, expected more than 0 on a logarithmic scale"),
        ({"log": True, "step": 2}, f"{PATIENCE}.step: got 2, expected null on a logarithmic scale"),
        ({"step": 3}, f"{PATIENCE}.high: got 5, expected low and a whole number of steps: 1 + n * 3"),
        ({"kind": "categorical", "choices": []}, f"{PATIENCE}.choices: got [], expected a list of 1 or more"),
        ({"kind": "categorical", "choices": [[1]]}, f"{PATIENCE}.choices.0: got [1], expected text, a finite number"),
        ({"kind": "normal"}, f"{PATIENCE}.kind: got 'normal', expected a kind out of 'float', 'int', 'categorical'"),
        (
            {"when": {"scheduler.kin": "length_triggered"}},
            f"{PATIENCE}.when.scheduler.kin: got 'length_triggered', expected a path of the space; "
            "did you mean 'scheduler.kind'?",
        ),
        (
            {"when": {"scheduler.kind": "constant"}},
            f"{PATIENCE}.when.scheduler.kind: got 'constant', expected one of its choices: 'length_triggered', 'sig",
        ),
        (
            {"when": {"scheduler.kind": ["length_triggered", "step"]}},
            f"{PATIENCE}.when.scheduler.kind: got ['length_triggered', 'step'], expected one of its choices",
        ),
        ({"when": {"scheduler.kind": []}}, f"{PATIENCE}.when.scheduler.kind: got [], expected a value or several"),
        (
            {"when": {"scheduler.ratio": 1.5}},
            f"{PATIENCE}.when.scheduler.ratio: got 1.5, expected a value of a categorical path",
        ),
    ],
)
def test_a_mistake_in_a_dimension_has_its_place(dimension: dict[str, Any], said: str) -> None:
    written = {"kind": "int", "low": 1, "high": 5, **dimension}
    if written["kind"] == "categorical":
        written = {"kind": "categorical", "choices": dimension["choices"]}
    tree = {**TREE["space"], "scheduler.patience": written}
    assert mistake({"space": tree}).startswith(said)


def test_conditions_that_wait_for_each_other_are_refused() -> None:
    circle = {
        "scheduler.kind": {"when": {"scheduler.anchor": "start"}},
        "scheduler.anchor": {
            "kind": "categorical",
            "choices": ["start"],
            "when": {"scheduler.kind": "length_triggered"},
        },
    }
    said = "space.scheduler.kind.when: got {'scheduler.anchor': 'start'}, expected conditions that do not wait for each"
    assert mistake({"space": circle}).startswith(said)


def test_a_space_is_not_empty() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        SweepConfig.model_validate({**TREE, "space": {}})


@pytest.mark.parametrize("path", NOT_IN_SPACE)
def test_what_trials_have_in_common_is_not_in_the_space(path: str) -> None:
    dimension = {"kind": "int", "low": 1, "high": 2}
    for written in (path, f"{path}.every"):
        said = f"space.{written}: got {dimension}, expected something in which trials may differ, none of name, arms,"
        assert mistake({"space": {written: dimension}}).startswith(said)


def test_what_the_sweep_says_itself_is_not_in_its_changes() -> None:
    assert mistake({"changes": {"name": "x"}}).startswith("changes.name: got 'x', expected something else: the sweep's")
    assert mistake({"changes": {"seeds": [0]}}).startswith("changes.seeds: got [0], expected something else")
    assert mistake({"changes": {"arms": {}}}).startswith("changes.arms: got {}, expected something else")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"scheduler.rati": 2}, "enqueue.0.scheduler.rati: got 2, expected a path of the space; did you mean"),
        ({"scheduler.ratio": 5}, "enqueue.0.scheduler.ratio: got 5, expected from 1.2 to 3.0"),
        ({"scheduler.ratio": "2"}, "enqueue.0.scheduler.ratio: got '2', expected from 1.2 to 3.0"),
        ({"scheduler.patience": 1.0}, "enqueue.0.scheduler.patience: got 1.0, expected a whole number from 1 to 5"),
        ({"scheduler.kind": "step"}, "enqueue.0.scheduler.kind: got 'step', expected one of its choices: 'length_trig"),
        ({"scheduler.kind": [1]}, "enqueue.0.scheduler.kind: got [1], expected text, a finite number, true, false or"),
        (
            {"scheduler.kind": "signal_triggered", "scheduler.patience": 3},
            "enqueue.0.scheduler.patience: got 3, expected no value: there is none unless scheduler.kind",
        ),
    ],
)
def test_what_is_enqueued_is_in_the_space(params: dict[str, Any], said: str) -> None:
    assert mistake({"enqueue": [params]}).startswith(said)


def test_all_that_is_enqueued_is_tried() -> None:
    said = "trials: got 1, expected room for everything in enqueue: at least 2"
    assert mistake({"trials": 1, "enqueue": [{}, {}]}) == said


@pytest.mark.parametrize(
    ("enabled", "beside", "shares"),
    [("auto", False, True), ("auto", True, False), (True, False, True), (False, False, False), (False, True, False)],
)
def test_steps_are_shared_where_only_the_scheduler_differs(enabled: Any, beside: bool, shares: bool) -> None:
    other = {"rollout.temperature": {"kind": "float", "low": 0.5, "high": 1}} if beside else {}
    tree = merge(TREE, {"sharing": {"enabled": enabled}, "space": other})
    assert SweepConfig.model_validate(tree).shares is shares


def test_sharing_with_another_path_is_refused_by_its_name() -> None:
    other = {"rollout.temperature": {"kind": "float", "low": 0.5, "high": 1}}
    said = (
        "sharing.enabled: got True, expected auto or false: rollout.temperature can change steps before the scheduler"
    )
    assert mistake({"sharing": {"enabled": True}, "space": other}).startswith(said)


def test_reading_a_sweep_loads_nothing_heavy() -> None:
    heavy = ("torch", "ray", "vllm", "mlflow", "optuna")
    code = f"import sys, sweeps.sweep_file; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
