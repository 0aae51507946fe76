"""What holds for every policy on every trace."""

import json
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.lr_policies import (
    ConstantConfig,
    CosineConfig,
    LengthTriggeredConfig,
    LinearConfig,
    LrDecision,
    PolicyConfig,
    SignalTriggeredConfig,
    StepConfig,
)

KEY = "response/length_mean"
Row = tuple[int, dict[str, float | None]]

# Exact decimals and powers of one another, where comparisons are hardest, among numbers of no special kind.
factors = st.sampled_from([0.1, 0.5, 0.7, 0.9]) | st.floats(0.01, 0.99)
floors = st.sampled_from([0.0, 0.001, 0.1, 0.25, 0.49, 1.0]) | st.floats(0, 1)
shared: dict[str, Any] = {"lr": st.just(0.0) | st.floats(1e-9, 1e-2), "warmup_steps": st.integers(0, 12)}
decaying: dict[str, Any] = shared | {"factor": factors, "min_lr_ratio": floors}
annealed: dict[str, Any] = shared | {"min_lr_ratio": floors, "total_steps": st.integers(13, 90)}
detecting: dict[str, Any] = decaying | {
    "baseline_steps": st.integers(1, 6),
    "smoothing": st.sampled_from([0.2, 1.0]),
    "ratio": st.floats(0.5, 3),
    "patience": st.integers(1, 4),
}
configs: st.SearchStrategy[PolicyConfig] = st.one_of(
    st.builds(ConstantConfig, **shared),
    st.builds(LinearConfig, **annealed),
    st.builds(CosineConfig, **annealed),
    st.builds(StepConfig, **decaying, period=st.integers(1, 30)),
    st.builds(
        LengthTriggeredConfig,
        **detecting,
        period_multiplier=st.floats(0.1, 3),
        anchor=st.sampled_from(["start", "surge"]),
        surge_step=st.none() | st.integers(0, 60),
        decay_period=st.none() | st.integers(1, 40),
    ),
    st.builds(
        SignalTriggeredConfig,
        **detecting,
        signal=st.just(KEY),
        threshold=st.none() | st.floats(0, 3000),
        cooldown_steps=st.integers(0, 15),
    ),
)
values = st.none() | st.just(math.nan) | st.floats(900, 1100) | st.floats(2000, 4000)


@st.composite
def traces(draw: st.DrawFn) -> list[Row]:
    """Rows that start anywhere and have gaps, some of them without a usable value."""
    step = draw(st.integers(0, 30))
    rows: list[Row] = []
    for value in draw(st.lists(values, min_size=1, max_size=60)):
        rows.append((step, {KEY: value}))
        step += draw(st.sampled_from([1, 1, 1, 1, 2, 17]))
    return rows


def replay(config: PolicyConfig, trace: list[Row]) -> list[LrDecision]:
    policy = config.build(total_steps=None)
    return [policy.observe(step, metrics) for step, metrics in trace]


@settings(max_examples=300, deadline=None)
@given(configs, traces())
def test_the_lr_is_never_above_the_warmed_lr_nor_below_the_floor(config: PolicyConfig, trace: list[Row]) -> None:
    floor = getattr(config, "min_lr_ratio", 1.0)
    for decision in replay(config, trace):
        warmed = config.lr * config.warm(decision.step)
        assert decision.lr <= warmed
        assert decision.lr >= warmed * floor


@settings(max_examples=300, deadline=None)
@given(configs, traces())
def test_after_the_warmup_the_lr_never_rises(config: PolicyConfig, trace: list[Row]) -> None:
    lrs = [decision.lr for decision in replay(config, trace) if decision.step >= config.warmup_steps]
    assert lrs == sorted(lrs, reverse=True)


@settings(max_examples=300, deadline=None)
@given(configs, traces())
def test_events_come_in_order_and_each_milestone_once(config: PolicyConfig, trace: list[Row]) -> None:
    events = [event for decision in replay(config, trace) for event in decision.events]
    assert events.count("surge") <= 1
    assert events.count("floor") <= 1
    if "floor" in events:
        assert "decay" not in events[events.index("floor") :]
        assert events[events.index("floor") - 1] == "decay"


@settings(max_examples=200, deadline=None)
@given(configs, traces(), st.data())
def test_the_replay_of_a_prefix_is_the_prefix_of_the_replay(
    config: PolicyConfig, trace: list[Row], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(trace)))
    assert replay(config, trace[:cut]) == replay(config, trace)[:cut]


@settings(max_examples=100, deadline=None)
@given(configs, traces())
def test_saving_and_loading_at_any_step_changes_nothing(config: PolicyConfig, trace: list[Row]) -> None:
    policy = config.build(total_steps=None)
    resumed = []
    for step, metrics in trace:
        saved = json.dumps(policy.state_dict(), allow_nan=False)
        policy = config.build(total_steps=None)
        policy.load_state_dict(json.loads(saved))
        assert json.dumps(policy.state_dict()) == saved
        resumed.append(policy.observe(step, metrics))
    assert resumed == replay(config, trace)
