"""The space: bounds that go together, and trials that choose in the order of the conditions."""

import doctest
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from sweeps import space
from sweeps.space import Choice, CircularConditions, Dimension, ask, exists, in_order

DIMENSION: TypeAdapter[Dimension] = TypeAdapter(Dimension)


def dimension(**fields: Any) -> Dimension:
    return DIMENSION.validate_python(fields)


def choices(*values: Any, **when: Any) -> Dimension:
    return dimension(kind="categorical", choices=list(values), when=when)


class FakeTrial:
    """Takes the highest number and the last choice; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        self.asked.append(name)
        return high

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        self.asked.append(name)
        return high

    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Choice:
        self.asked.append(name)
        return choices[-1]


SCHEDULERS = {
    "scheduler.patience": dimension(kind="int", low=1, high=5, when={"scheduler.kind": "length_triggered"}),
    "scheduler.ratio": dimension(kind="float", low=1.2, high=3.0),
    "scheduler.signal": choices("reward/mean", **{"scheduler.kind": ["signal_triggered"]}),
    "scheduler.kind": choices("length_triggered", "signal_triggered"),
}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "float", "low": 2, "high": 1}, "low at most high, which is 1.0"),
        ({"kind": "int", "low": 2, "high": 1}, "low at most high, which is 1"),
        ({"kind": "float", "low": 0, "high": 1, "log": True}, "low more than 0 on a logarithmic scale"),
        ({"kind": "int", "low": 0, "high": 8, "log": True}, "low more than 0 on a logarithmic scale"),
        ({"kind": "float", "low": 1, "high": 2, "log": True, "step": 0.5}, "step null on a logarithmic scale"),
        ({"kind": "int", "low": 1, "high": 2, "log": True, "step": 1}, "step null on a logarithmic scale"),
        ({"kind": "float", "low": 0, "high": 1, "step": 0.3}, "high low and a whole number of steps: 0.0 + n * 0.3"),
        ({"kind": "int", "low": 0, "high": 5, "step": 2}, "high low and a whole number of steps: 0 + n * 2"),
        ({"kind": "int", "low": 0, "high": 5, "step": 0}, "greater than 0"),
        ({"kind": "int", "low": 0.5, "high": 5}, "valid integer"),
        ({"kind": "float", "low": 0, "high": float("inf")}, "finite number"),
        ({"kind": "categorical", "choices": []}, "at least 1 item"),
        ({"kind": "categorical", "choices": [1, 2, 1]}, "choices that differ from each other: 1 stands twice"),
        ({"kind": "categorical", "choices": [[1]]}, "text, a finite number, true, false or null"),
        ({"kind": "categorical", "choices": [float("nan")]}, "text, a finite number, true, false or null"),
        ({"kind": "float", "low": 0, "high": 1, "when": {"a": []}}, "a value or several"),
        ({"kind": "uniform", "low": 0, "high": 1}, "'float', 'int', 'categorical'"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        dimension(**fields)
    assert raised.value.error_count() == 1
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "inside", "outside"),
    [
        ({"kind": "float", "low": 1, "high": 2}, [1, 1.0, 1.7, 2], [0.9, 2.1, "1", True, None]),
        ({"kind": "float", "low": 0.1, "high": 0.7, "step": 0.2}, [0.1, 0.3, 0.5, 0.7], [0.2, 0.6]),
        ({"kind": "int", "low": 1, "high": 5}, [1, 3, 5], [0, 6, 2.0, True, "2"]),
        ({"kind": "int", "low": 1, "high": 5, "step": 2}, [1, 3, 5], [2, 4]),
        ({"kind": "categorical", "choices": ["a", 1, None]}, ["a", 1, None], ["b", True, 2]),
    ],
)
def test_a_dimension_knows_what_is_within(fields: dict[str, Any], inside: list[Any], outside: list[Any]) -> None:
    found = dimension(**fields)
    assert [value for value in inside if not found.contains(value)] == []
    assert [value for value in outside if found.contains(value)] == []
    assert all(found.contains(edge) for edge in found.edges())


def test_an_equal_low_and_high_are_one_value() -> None:
    assert dimension(kind="float", low=1, high=1).edges() == (1, 1)


def test_conditions_come_first_and_what_does_not_exist_is_not_asked() -> None:
    trial = FakeTrial()
    assert ask(SCHEDULERS, trial) == {
        "scheduler.ratio": 3.0,
        "scheduler.kind": "signal_triggered",
        "scheduler.signal": "reward/mean",
    }
    assert trial.asked == ["scheduler.ratio", "scheduler.kind", "scheduler.signal"]


def test_a_condition_on_what_does_not_exist_does_not_hold() -> None:
    below = choices(1, **{"b": "on"})
    middle = choices("off", "on", **{"a": True})
    assert ask({"c": below, "b": middle, "a": choices(False)}, FakeTrial()) == {"a": False}
    assert ask({"c": below, "b": middle, "a": choices(True)}, FakeTrial()) == {"a": True, "b": "on", "c": 1}


def test_optuna_is_asked_for_values_of_the_right_type() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial({"scheduler.ratio": 2, "scheduler.kind": "length_triggered"})
    given = ask(SCHEDULERS, study.ask())
    assert given["scheduler.ratio"] == 2 and isinstance(given["scheduler.ratio"], float)
    for _ in range(20):
        trial = study.ask()
        params = ask(SCHEDULERS, trial)
        assert trial.params == params
        assert all(SCHEDULERS[path].contains(value) for path, value in params.items())
        assert set(params) == {path for path, found in SCHEDULERS.items() if exists(found, params)}


def test_optuna_takes_steps_and_logarithms() -> None:
    stepped = {
        "a": dimension(kind="float", low=0.1, high=0.7, step=0.2),
        "b": dimension(kind="int", low=1, high=9, step=4),
        "c": dimension(kind="float", low=1e-6, high=1e-3, log=True),
        "d": dimension(kind="int", low=1, high=100, log=True),
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(10):
        params = ask(stepped, study.ask())
        assert params["b"] in (1, 5, 9)
        assert round(params["a"], 9) in (0.1, 0.3, 0.5, 0.7)
        assert 1e-6 <= params["c"] <= 1e-3
        assert isinstance(params["d"], int)


@given(st.permutations([*SCHEDULERS]))
def test_every_order_of_a_space_asks_the_same(paths: list[str]) -> None:
    assert ask({path: SCHEDULERS[path] for path in paths}, FakeTrial()) == ask(SCHEDULERS, FakeTrial())


@given(st.lists(st.sets(st.integers(0, 5)), min_size=1, max_size=6))
def test_an_order_has_conditions_first_or_there_is_none(conditions: list[set[int]]) -> None:
    below = {i: {other for other in others if other < len(conditions)} for i, others in enumerate(conditions)}
    tree = {str(i): choices(1, 2, **{str(other): 1 for other in others}) for i, others in below.items()}
    try:
        ordered = list(in_order(tree))
    except CircularConditions as circle:
        assert tree[circle.path].when
        return
    assert sorted(ordered) == sorted(tree)
    for place, path in enumerate(ordered):
        assert tree[path].when.keys() <= set(ordered[:place])


def test_the_examples_in_the_docstrings_run() -> None:
    results = doctest.testmod(space)
    assert results.attempted and not results.failed
