"""How far a policy decides as a recorded run did, seeing what it would have seen in the run."""

import doctest
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.config import LearnerConfig
from actors.lr_policies import (
    ConstantConfig,
    LengthTriggeredConfig,
    LinearConfig,
    LrDecision,
    SchedulerConfig,
    SignalTriggeredConfig,
)
from actors.scheduler import Scheduler
from sweeps.fork import divergence as module
from sweeps.fork.divergence import divergence

LENGTH = "response/length_mean"
VALUES = st.none() | st.floats() | st.floats(1, 100) | st.integers(1, 100)
POLICIES: st.SearchStrategy[SchedulerConfig] = st.one_of(
    st.builds(ConstantConfig, lr=st.sampled_from([1e-6, 2e-6])),
    st.builds(LinearConfig, warmup_steps=st.integers(0, 3)),
    st.builds(
        LengthTriggeredConfig, baseline_steps=st.integers(1, 5), ratio=st.sampled_from([1.1, 2.0]), patience=st.just(1)
    ),
    st.builds(
        SignalTriggeredConfig,
        signal=st.just(LENGTH),
        threshold=st.none() | st.floats(1, 100),
        baseline_steps=st.integers(1, 5),
        cooldown_steps=st.integers(0, 5),
    ),
)


def record(config: SchedulerConfig, values: list[float | None]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows that a run leaves, read back from JSON, and the state of its policy."""
    scheduler = Scheduler(config.build(len(values)), LearnerConfig())
    rows = []
    for step, value in enumerate(values):
        metrics = scheduler.decide(step, [], {} if value is None else {LENGTH: value}, 0).metrics
        finite = {key: number for key, number in metrics.items() if math.isfinite(number)}
        rows.append(json.loads(json.dumps({"step": step, **finite, "time/step": 1.0}, allow_nan=False)))
    policy: dict[str, Any] = scheduler.state_dict()["policy"]
    return rows, policy


def test_the_example_in_the_docstring_is_right() -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@given(config=POLICIES, values=st.lists(VALUES, min_size=5, max_size=30))
def test_a_policy_never_differs_from_itself_and_ends_in_the_same_state(
    config: SchedulerConfig, values: list[float | None]
) -> None:
    rows, state = record(config, values)
    found = divergence(config, len(values), rows)
    assert found.at == len(rows)
    assert found.state == state
    assert [decision.lr for decision in found.decisions] == [row["scheduler/lr"] for row in rows]


@given(first=POLICIES, second=POLICIES, values=st.lists(VALUES, min_size=5, max_size=30))
def test_it_is_where_the_rates_of_two_runs_first_differ(
    first: SchedulerConfig, second: SchedulerConfig, values: list[float | None]
) -> None:
    (rows, _), (others, state) = record(first, values), record(second, values)
    differ = [step for step, row in enumerate(rows) if row["scheduler/lr"] != others[step]["scheduler/lr"]]
    found = divergence(second, len(values), rows)
    assert found.at == (differ[0] if differ else len(rows))
    assert found.state == (None if differ else state)
    events = [[f"scheduler/event/{event}" for event in decision.events] for decision in found.decisions]
    assert events == [[key for key in row if key.startswith("scheduler/event/")] for row in others[: found.at]]


def test_the_last_bit_of_a_rate_counts() -> None:
    rows = [{"step": 0, "scheduler/lr": 1e-6}, {"step": 1, "scheduler/lr": math.nextafter(1e-6, 1)}]
    found = divergence(ConstantConfig(lr=1e-6), 2, rows)
    assert found.at == 1
    assert found.decisions == (LrDecision(step=0, lr=1e-6, events=()),)


def test_a_row_without_a_rate_is_none_that_the_policy_agrees_with() -> None:
    assert divergence(ConstantConfig(lr=1e-6), 2, [{"step": 0}]).at == 0


def test_what_follows_the_first_difference_is_not_read() -> None:
    rows = iter([{"step": 0, "scheduler/lr": 2.0}, {"step": 1, "scheduler/lr": 2.0}])
    divergence(ConstantConfig(lr=1e-6), 2, rows)
    assert len(list(rows)) == 1


@pytest.mark.parametrize(
    "signal", ["time/step", "throughput/tokens_per_s", "gradient/update_norm_ratio", "scheduler/lr"]
)
def test_what_is_known_only_after_the_decision_is_not_seen(signal: str) -> None:
    config = SignalTriggeredConfig(lr=1e-6, signal=signal, threshold=-1.0, patience=1)
    rows = [{"step": step, "scheduler/lr": 1e-6, signal: 1e-6} for step in range(4)]
    assert divergence(config, 4, rows).at == 4
