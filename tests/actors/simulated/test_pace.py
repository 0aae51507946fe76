"""How long stand-ins take."""

import time

import pytest

from actors.simulated.config import SecondsConfig, SimulationConfig
from actors.simulated.pace import Pace, critical_path_s

SIMULATION = SimulationConfig(jitter=0.2, seconds=SecondsConfig(generate=2.0, gradients=1.0, apply=0.05, publish=0.5))


def test_a_call_takes_what_the_config_says_within_the_jitter_and_no_two_take_the_same() -> None:
    taken = {
        Pace(SIMULATION, "rollout", index).seconds("generate", version) for index in range(9) for version in range(9)
    }
    assert len(taken) == 81
    assert all(1.6 <= seconds <= 2.4 for seconds in taken)
    assert max(taken) - min(taken) > 0.5


def test_the_same_call_takes_the_same_time_again_and_another_seed_gives_another_one() -> None:
    assert Pace(SIMULATION, "learner", 1).seconds("apply", 3) == Pace(SIMULATION, "learner", 1).seconds("apply", 3)
    other = SIMULATION.model_copy(update={"seed": 1})
    assert Pace(other, "learner", 1).seconds("apply", 3) != Pace(SIMULATION, "learner", 1).seconds("apply", 3)


def test_what_is_done_in_that_time_is_part_of_it() -> None:
    pace = Pace(SIMULATION, "learner", 0)
    started = time.monotonic()
    with pace.taking("apply", 0):
        time.sleep(0.02)
    assert time.monotonic() - started >= pace.seconds("apply", 0)


def test_the_critical_path_is_the_slowest_of_each_phase() -> None:
    own = critical_path_s(SIMULATION, rollouts=3, learners=2, version=7)
    assert own["generate"] == max(Pace(SIMULATION, "rollout", index).seconds("generate", 7) for index in range(3))
    assert own["publish"] == Pace(SIMULATION, "learner", 0).seconds("publish", 8)
    assert sum(own.values()) == pytest.approx(3.55, rel=0.2)
