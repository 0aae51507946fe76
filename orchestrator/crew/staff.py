"""Who does the work of a run, the real classes or their timed stand-ins, and what each of them is made with."""

from dataclasses import dataclass
from typing import Any

from actors.faults import Faults
from actors.learner import Learner
from actors.rollout_worker import RolloutWorker
from actors.simulated.learner import SimulatedLearner, SimulatedLearnerSpec
from actors.simulated.rollout_worker import SimulatedEngineSpec, SimulatedRolloutWorker
from orchestrator.config import ExperimentConfig
from orchestrator.crew import worker_specs
from orchestrator.model_files import ModelFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Staff:
    """The workers of one role.

    Example:
        Staff(worker=SimulatedLearner, arguments=[(spec,), (other_spec,)], per_process=16)
    """

    worker: type[Any]  # has the calls of the role's real class
    arguments: list[tuple[Any, ...]]  # of its constructor, per worker
    per_process: int | None = None  # how many share one; None is one process each


def rollout_staff(
    config: ExperimentConfig, model: ModelFiles, faults: Faults, worker: type[RolloutWorker] = RolloutWorker
) -> Staff:
    """The rollout workers: of this class, unless the run is a simulation."""
    specs = worker_specs.engine_specs(config, model, faults)
    simulation = config.simulation
    if simulation is None:
        return Staff(worker=worker, arguments=[(spec,) for spec in specs])
    stand_ins = [
        SimulatedEngineSpec(
            config=simulation,
            model=spec.model,
            index=spec.index,
            max_model_len=spec.max_model_len,
            max_response_tokens=config.rollout.max_response_tokens,
        )
        for spec in specs
    ]
    return Staff(
        worker=SimulatedRolloutWorker,
        arguments=[(spec,) for spec in stand_ins],
        per_process=simulation.workers_per_process,
    )


def learner_staff(
    config: ExperimentConfig, model: ModelFiles, faults: Faults, worker: type[Learner] = Learner
) -> Staff:
    """The learner ranks, likewise."""
    simulation = config.simulation
    if simulation is None:
        return Staff(worker=worker, arguments=[(spec,) for spec in worker_specs.learner_specs(config, model, faults)])
    ranks = config.learner.workers
    stand_ins = [
        SimulatedLearnerSpec(
            config=simulation, correction=config.learner.correction, rank=rank, world_size=ranks, faults=faults
        )
        for rank in range(ranks)
    ]
    return Staff(
        worker=SimulatedLearner, arguments=[(spec,) for spec in stand_ins], per_process=simulation.workers_per_process
    )
