"""Who does the work of a run, and what they are made with."""

from pathlib import Path
from typing import Any

import pytest
from experiment_files import mistake, resolved

from actors.faults import Faults
from actors.learner import Learner
from actors.rollout_worker import RolloutWorker
from actors.simulated.learner import SimulatedLearner
from actors.simulated.rollout_worker import SimulatedRolloutWorker
from orchestrator.crew.staff import learner_staff, rollout_staff
from orchestrator.model_files import ModelFiles

MODEL = ModelFiles(path="/models/tiny", context_length=512)
FAULTS = Faults(dropped_tensors=("lm_head.weight",))
WORKERS = {"rollout": {"workers": 3}, "learner": {"workers": 2}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "e.yaml"


def test_without_the_block_the_real_classes_work_each_in_a_process_of_its_own(file: Path) -> None:
    config = resolved(file, WORKERS)
    rollout, learner = rollout_staff(config, MODEL, FAULTS), learner_staff(config, MODEL, FAULTS)
    assert (rollout.worker, learner.worker) == (RolloutWorker, Learner)
    assert (len(rollout.arguments), len(learner.arguments)) == (3, 2)
    assert (rollout.per_process, learner.per_process) == (None, None)
    assert learner.arguments[1][0].rank == 1


def test_with_the_block_stand_ins_work_and_share_processes(file: Path) -> None:
    config = resolved(file, {**WORKERS, "simulation": {"workers_per_process": 2, "seed": 4}})
    rollout, learner = rollout_staff(config, MODEL, FAULTS), learner_staff(config, MODEL, FAULTS)
    assert (rollout.worker, learner.worker) == (SimulatedRolloutWorker, SimulatedLearner)
    assert (rollout.per_process, learner.per_process) == (2, 2)
    assert [spec.index for (spec,) in rollout.arguments] == [0, 1, 2]
    assert [(spec.rank, spec.world_size, spec.faults) for (spec,) in learner.arguments] == [
        (0, 2, FAULTS),
        (1, 2, FAULTS),
    ]
    assert {spec.config.seed for (spec,) in [*rollout.arguments, *learner.arguments]} == {4}


@pytest.mark.parametrize(
    ("stand_in", "real", "without"),
    [
        # How weights are transferred is between real engines and learners; there is no model to export.
        (SimulatedRolloutWorker, RolloutWorker, set()),
        (SimulatedLearner, Learner, {"export"}),
    ],
)
def test_a_stand_in_has_the_calls_that_a_crew_makes(stand_in: type[Any], real: type[Any], without: set[str]) -> None:
    transfer = {name for name in vars(real) if "weight" in name}
    calls = {name for name, value in vars(real).items() if callable(value) and not name.startswith("_")}
    assert calls - transfer - without - vars(stand_in).keys() == set()


def test_a_simulated_run_exports_no_model(file: Path) -> None:
    assert mistake(file, {"simulation": {}, "export": {}}) == (
        "export: got {}, expected nothing in a simulated run, which has no model"
    )
