"""What runs need of a cluster: read off the config, with nothing started."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from experiment_files import resolved

from cluster.plan import Bundle, Plan, Seat
from orchestrator.config import ExperimentConfig
from orchestrator.crew.plans import plan_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "e.yaml"


def of(file: Path, changes: dict[str, Any] | None = None) -> ExperimentConfig:
    return resolved(file, changes or {})


SCHEDULER = Bundle(seats=(Seat(role="scheduler", cpus=0.1, gpus=0.0),))


def test_the_plan_has_a_place_for_every_worker_role_by_role(file: Path) -> None:
    config = of(
        file,
        {
            "rollout": {"workers": 2, "cpus_per_worker": 1.5, "gpus_per_worker": 2, "tensor_parallel_size": 2},
            "learner": {"workers": 3, "cpus_per_worker": 2.0, "gpus_per_worker": 1},
            "cluster": {"strategy": "SPREAD"},
        },
    )
    rollout = Bundle(seats=(Seat(role="rollout", cpus=1.5, gpus=2.0),))
    learner = Bundle(seats=(Seat(role="learner", cpus=2.0, gpus=1.0),))
    assert plan_of(config) == Plan(
        bundles=(*[rollout] * 2, *[learner] * 3, SCHEDULER), strategy="SPREAD", name=config.name
    )


def test_ranks_that_a_node_must_hold_together_are_one_bundle(file: Path) -> None:
    config = of(file, {"learner": {"workers": 5, "workers_per_node": 2}})
    learner = Seat(role="learner", cpus=0.25, gpus=0.0)
    nodes = [bundle for bundle in plan_of(config).bundles if learner in bundle.seats]
    assert nodes == [Bundle(seats=(learner,) * count) for count in (2, 2, 1)]


def test_colocated_an_engine_and_a_rank_are_one_bundle(file: Path) -> None:
    gpus = {"workers": 2, "gpus_per_worker": 0.5}
    config = of(file, {"rollout": gpus, "learner": gpus, "cluster": {"colocate": True}})
    pair = Bundle(seats=tuple(Seat(role=role, cpus=0.25, gpus=0.5) for role in ("rollout", "learner")))
    assert plan_of(config).bundles == (pair, pair, SCHEDULER)
    assert plan_of(config).bundles[0].resources() == {"CPU": 0.5, "GPU": 1.0}


def test_the_roles_of_the_plan_are_those_whose_restarts_are_counted(file: Path) -> None:
    config = of(file)
    roles = Counter(seat.role for seat in plan_of(config).seats)
    assert set(roles) == set(config.cluster.restarts.model_dump())


def test_a_plan_is_made_without_what_runs_there() -> None:
    code = "import sys, orchestrator.crew.plans; print({'torch', 'ray', 'transformers', 'vllm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
