"""Strikes at the moments that a user names, on pools without Ray."""

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from experiment_files import resolved
from fake_pools import Simulation

from actors.faults import Faults, Strike
from orchestrator.config_errors import ConfigError
from orchestrator.crew import fault_injection
from orchestrator.crew.fault_injection import FaultInjection, check_strikes

KILLED, STOPPED = signal.SIGKILL, signal.SIGSTOP


def strikes(text: str) -> tuple[Strike, ...]:
    return Faults.parse(text).strikes


def injecting(text: str) -> tuple[FaultInjection, Simulation]:
    simulation = Simulation()
    return FaultInjection(strikes(text), simulation.crew), simulation


def go_through(injection: FaultInjection, step: int, phases: str = "rollout score gradients decide apply") -> None:
    entered = injection.at(step)
    for phase in phases.split():
        entered(phase)


@pytest.mark.parametrize(
    ("text", "pool", "struck"),
    [
        ("kill rollout 1 at step 3 in decide", "rollouts", (1, KILLED)),
        ("stop rollout 0 at step 3 in decide", "rollouts", (0, STOPPED)),
        ("kill learner 1 at step 3 in decide", "learners", (1, KILLED)),
        ("stop learner 0 at step 3 in decide", "learners", (0, STOPPED)),
        ("kill scheduler at step 3 in decide", "scheduler", (0, KILLED)),
        ("stop scheduler at step 3 in decide", "scheduler", (0, STOPPED)),
    ],
)
def test_the_named_worker_is_struck_when_its_phase_begins_and_nobody_else(
    text: str, pool: str, struck: tuple[int, signal.Signals]
) -> None:
    injection, simulation = injecting(text)
    everyone = (simulation.rollouts, simulation.learners, simulation.scheduler)
    go_through(injection, 2)
    go_through(injection, 3, "rollout score gradients")
    assert [one.struck for one in everyone] == [[], [], []]
    injection.at(3)("decide")
    assert getattr(simulation, pool).struck == [struck]
    assert sum(len(one.struck) for one in everyone) == 1


def test_a_strike_falls_once_also_when_its_step_is_done_again_or_its_phase_is_entered_twice() -> None:
    injection, simulation = injecting("kill rollout 0 at step 1 in score")
    go_through(injection, 1, "rollout score rollout score")
    go_through(injection, 0)
    go_through(injection, 1)
    assert simulation.rollouts.struck == [(0, KILLED)]


def test_strikes_at_one_moment_fall_together_and_one_that_stands_twice_falls_twice() -> None:
    injection, simulation = injecting(
        "kill rollout 0 at step 1; kill rollout 1 at step 1; kill rollout 1 at step 1; stop learner 0 at step 1"
    )
    go_through(injection, 1)
    assert simulation.rollouts.struck == [(0, KILLED), (1, KILLED), (1, KILLED)]
    assert simulation.learners.struck == [(0, STOPPED)]


def test_a_strike_some_seconds_into_a_phase_keeps_nobody_waiting() -> None:
    injection, simulation = injecting("kill learner 0 at step 1 in apply after 0.3 s")
    started = time.monotonic()
    go_through(injection, 1)
    assert time.monotonic() - started < 0.2
    assert simulation.learners.struck == []
    while not simulation.learners.struck and time.monotonic() - started < 10:
        time.sleep(0.01)
    assert time.monotonic() - started >= 0.3
    assert simulation.learners.struck == [(0, KILLED)]


def test_the_driver_strikes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[int] = []

    def receive(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    monkeypatch.setitem(fault_injection.SIGNALS, "kill", signal.SIGUSR1)  # one that can be survived
    before = signal.signal(signal.SIGUSR1, receive)
    try:
        injection, _ = injecting("kill driver at step 1 in record")
        go_through(injection, 1)
        assert received == []
        injection.at(1)("record")
        assert received == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


CREW = {"rollout": {"workers": 2}, "learner": {"workers": 3}, "steps": 10}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kill rollout 1 at step 9",
        "stop learner 2 at step 0",
        "kill scheduler at step 9; kill driver at step 9 in record",
    ],
)
def test_strikes_on_those_who_are_there_are_fine(tmp_path: Path, text: str) -> None:
    check_strikes(strikes(text), resolved(tmp_path / "e.yaml", CREW))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kill rollout 2 at step 1", "got 'rollout 2', expected a number below 2: this run has 2 of that role"),
        ("stop learner 3 at step 1", "got 'learner 3', expected a number below 3: this run has 3 of that role"),
        ("kill driver at step 10", "got 'step 10', expected a step below 10"),
        ("kill rollout 0 at step 1; kill scheduler at step 99", "got 'step 99', expected a step below 10"),
    ],
)
def test_a_strike_on_nobody_or_at_no_step_is_a_mistake(tmp_path: Path, text: str, said: str) -> None:
    config: Any = resolved(tmp_path / "e.yaml", CREW)
    with pytest.raises(ConfigError) as raised:
        check_strikes(strikes(text), config)
    assert str(raised.value) == f"environment: EVENKEEL_FAULTS: {said}"
