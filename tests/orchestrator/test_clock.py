"""Where the seconds of a step went."""

import pytest

from orchestrator import clock
from orchestrator.clock import PhaseClock


class FakeTime:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(clock, "time", fake)
    return fake


def test_phases_add_up_however_often_they_are_entered(time: FakeTime) -> None:
    phases = PhaseClock()
    for seconds in (2.0, 3.0):
        with phases.phase("rollout"):
            time.now += seconds
        with phases.phase("score"):
            time.now += 0.25
    time.now += 1.0
    assert phases.metrics() == {"time/rollout": 5.0, "time/score": 0.5, "time/step": 6.5}


def test_a_phase_that_fails_is_counted_too(time: FakeTime) -> None:
    phases = PhaseClock()
    with pytest.raises(RuntimeError, match="lost"), phases.phase("rollout"):
        time.now += 2.0
        raise RuntimeError("lost")
    assert phases.metrics() == {"time/rollout": 2.0, "time/step": 2.0}


def test_a_clock_without_phases_knows_the_step_only(time: FakeTime) -> None:
    assert PhaseClock().metrics() == {"time/step": 0.0}


def test_whoever_wants_to_know_is_told_of_each_phase_as_it_begins(time: FakeTime) -> None:
    told: list[str] = []
    phases = PhaseClock(told.append)
    for name in ("rollout", "score", "rollout"):
        with phases.phase(name):
            assert told[-1] == name
            time.now += 1.0
    assert told == ["rollout", "score", "rollout"]


def test_the_time_of_being_told_is_part_of_the_phase_and_an_error_there_ends_it(time: FakeTime) -> None:
    def entered(name: str) -> None:
        time.now += 0.5
        if name == "score":
            raise RuntimeError("struck")

    phases = PhaseClock(entered)
    with phases.phase("rollout"):
        time.now += 1.0
    with pytest.raises(RuntimeError, match="struck"), phases.phase("score"):
        time.now += 100.0
    assert phases.metrics()["time/rollout"] == 1.5
    assert phases.metrics()["time/step"] == 2.0
