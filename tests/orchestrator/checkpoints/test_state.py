"""A run's state: what goes to JSON comes back to the last bit, and what is no such state is named."""

import json
import math
import struct
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.lr_policies import LengthTriggeredConfig, SignalTriggeredConfig
from orchestrator.checkpoints.state import RunState
from orchestrator.stability import StabilityConfig, StabilityMonitor

FIELDS: dict[str, Any] = {
    "step": 40,
    "weight_version": 41,
    "cursor": 656,
    "scheduler": {"policy": {"last_step": 40}},
    "stability": {"signs": {}, "verdict": None},
    "mlflow_run_id": "0c41f0",
    "metrics_bytes": 48211,
    "learner_ranks": 2,
}
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
TREES = st.dictionaries(
    st.text(),
    st.recursive(LEAVES, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3)),
    max_size=4,
)


def bits(value: Any) -> Any:
    """The same with floats as their bytes, in which NaN equals itself and 0.0 is not -0.0."""
    if isinstance(value, float):
        return struct.pack("d", math.nan if math.isnan(value) else value)
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, list) else value


def mistake(text: str) -> str:
    with pytest.raises(ValueError) as raised:
        RunState.from_json(text)
    return str(raised.value)


@given(scheduler=TREES, stability=TREES, run_id=st.none() | st.text(), number=st.integers(1, 2**70))
def test_a_state_comes_back_to_the_last_bit(
    scheduler: dict[str, Any], stability: dict[str, Any], run_id: str | None, number: int
) -> None:
    changes = {"scheduler": scheduler, "stability": stability, "mlflow_run_id": run_id, "metrics_bytes": number}
    state = RunState(**{**FIELDS, **changes})
    back = RunState.from_json(state.to_json())
    assert bits(asdict(back)) == bits(asdict(state))
    assert [type(value) for value in asdict(back).values()] == [type(value) for value in asdict(state).values()]


@pytest.mark.parametrize("value", [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, math.inf, -math.inf, math.nan])
def test_floats_that_are_easily_lost_are_not(value: float) -> None:
    state = RunState(**{**FIELDS, "scheduler": {"norm_smoothed": value}})
    assert bits(RunState.from_json(state.to_json()).scheduler) == bits({"norm_smoothed": value})


@pytest.mark.parametrize(
    "policy",
    [
        LengthTriggeredConfig(baseline_steps=3),
        SignalTriggeredConfig(signal="response/length_mean", baseline_steps=3),
    ],
)
def test_the_states_of_policies_and_monitors_go_on_as_if_never_put_away(
    policy: LengthTriggeredConfig | SignalTriggeredConfig,
) -> None:
    watched, monitor = policy.build(None), StabilityMonitor(StabilityConfig())
    for step in range(7):
        metrics = {"response/length_mean": 10.0 / (step + 3), "reward/mean": 0.1 * step}
        watched.observe(step, metrics)
        monitor.observe(step, metrics)
    state = RunState(**{**FIELDS, "scheduler": watched.state_dict(), "stability": monitor.state_dict()})
    back = RunState.from_json(state.to_json())
    again, monitor_again = policy.build(None), StabilityMonitor(StabilityConfig())
    again.load_state_dict(back.scheduler)
    monitor_again.load_state_dict(back.stability)
    assert (again.state_dict(), monitor_again.state_dict()) == (watched.state_dict(), monitor.state_dict())


def test_what_is_of_no_json_type_is_refused_when_it_is_written() -> None:
    with pytest.raises(TypeError):
        RunState(**{**FIELDS, "scheduler": {"policy": object()}}).to_json()


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_field_is_named(name: str) -> None:
    assert mistake(json.dumps({key: value for key, value in FIELDS.items() if key != name})) == f"{name}: is missing"


def test_an_unknown_field_is_named() -> None:
    assert mistake(json.dumps({**FIELDS, "epoch": 3})) == "epoch: is no field of a run’s state"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("step", -1, "step: got -1, expected a whole number from 0 on"),
        ("step", True, "step: got True, expected a whole number from 0 on"),
        ("weight_version", 1.0, "weight_version: got 1.0, expected a whole number from 0 on"),
        ("cursor", "3", "cursor: got '3', expected a whole number from 0 on"),
        ("metrics_bytes", None, "metrics_bytes: got None, expected a whole number from 0 on"),
        ("learner_ranks", 0, "learner_ranks: got 0, expected a whole number from 1 on"),
        ("scheduler", None, "scheduler: got None, expected an object"),
        ("stability", [], "stability: got [], expected an object"),
        ("mlflow_run_id", 7, "mlflow_run_id: got 7, expected text or null"),
    ],
)
def test_a_value_of_another_type_is_named(name: str, value: Any, said: str) -> None:
    assert mistake(json.dumps({**FIELDS, name: value})) == said


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"step"'])
def test_what_is_no_object_is_no_state(text: str) -> None:
    assert mistake(text)
