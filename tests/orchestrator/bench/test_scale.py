"""What is made of the metrics of a simulated run; the runs themselves are in tests/end_to_end/test_simulation.py."""

import pytest

from actors.simulated.pace import critical_path_s
from orchestrator.bench.scale import experiment, overheads, sizes

PHASES = ("rollout", "score", "gradients", "decide", "apply", "publish")


def test_what_the_stand_ins_take_for_themselves_is_no_overhead() -> None:
    config = experiment(4, 2, 3)
    assert config.simulation is not None
    own = critical_path_s(config.simulation, 4, 2, 1)
    beyond = {"rollout": 0.05, "score": 0.02, "gradients": 0.03, "decide": 0.01, "apply": 0.004, "publish": 0.006}
    phases = dict(zip(("rollout", "gradients", "apply", "publish"), own.values(), strict=True))
    seconds = {name: phases.get(name, 0.0) + beyond[name] for name in PHASES}
    rows = [
        {"step": 0, "time/ended_s": 100.0},
        {
            "step": 1,
            "time/ended_s": 100.1 + sum(seconds.values()),
            **{f"time/{name}": seconds[name] for name in PHASES},
        },
    ]
    [found] = overheads(config, rows)
    assert found.by_phase == pytest.approx({**beyond, "between": 0.1})
    assert found.beyond == pytest.approx(0.22)
    assert found.own == pytest.approx(sum(own.values()))


def test_the_experiment_leaves_each_worker_something_to_do() -> None:
    config = experiment(256, 64, 5)
    assert config.rollout.prompts_per_step >= config.rollout.workers
    assert config.rollout.workers * config.rollout.cpus_per_worker + 64 * config.learner.cpus_per_worker < 2


def test_all_numbers_of_learners_are_measured_beside_the_most_rollout_workers() -> None:
    assert sizes([1, 4, 256], [1, 64]) == [(1, 1), (4, 4), (256, 64), (256, 1)]
