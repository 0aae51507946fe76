"""Runs of timed stand-ins in this process, and random faults for them."""

import os
import random
from pathlib import Path

import stand_ins
from disturbed_run import RUN, write_file

# Imported last: what comes with `cluster` has to be in the environment when Ray is.
from ray import cloudpickle
from rich.console import Console

from actors.faults import PHASES, Faults, Strike
from cluster.config import ClusterConfig
from cluster.session import session
from orchestrator.crew.crew import Crew
from orchestrator.crew.crews import Crews
from orchestrator.crew.workers import Roles
from orchestrator.experiment import Experiment
from orchestrator.experiment_file import ExperimentFile
from orchestrator.model_files import find_model
from orchestrator.problem_set import ProblemSet
from orchestrator.run_spec import RunSpec
from orchestrator.self_test import SelfTestReport
from orchestrator.task_problems import TaskFiles
from orchestrator.tracking.tracker import Tracker

cloudpickle.register_pickle_by_value(stand_ins)  # Ray's workers cannot import it
WHO = (("rollout", 0), ("rollout", 1), ("learner", 0), ("learner", 1), ("scheduler", 0))


class StandInExperiment(Experiment):
    """Has no weights to test the transfer of."""

    def self_test(self, crew: Crew, training: ProblemSet) -> SelfTestReport:
        return SelfTestReport(floor=0.0, perturbed=0.0, limit=0.01, syncs=0)


def stand_in_spec(folder: Path, steps: int, strikes: tuple[Strike, ...] = (), *, resume: bool = False) -> RunSpec:
    """A run of that many steps."""
    (write_file(folder) / "runs").mkdir(exist_ok=True)
    overrides = [
        f"steps={steps}",
        "rollout.filter_flat_groups=false",
        "checkpoint.every=5",
        "cluster.silence_timeout_s=3",
        "scheduler.decay_period=40",
    ]
    config = ExperimentFile.read(folder / "tiny.yaml", overrides).resolve("default")
    return RunSpec(
        config=config,
        model=find_model(config, "tiny.yaml"),
        task=TaskFiles.open(config, "tiny.yaml"),
        arm="default",
        seed=0,
        folder=folder / RUN,
        resume=resume,
        faults=Faults(strikes=strikes),
        roles=Roles(rollout=stand_ins.StandInEngine, learner=stand_ins.StandInLearner),  # type: ignore[arg-type]
    )


def stand_in_run(
    folder: Path, steps: int, strikes: tuple[Strike, ...] = (), *, database: Path | None = None, resume: bool = False
) -> None:
    """Run it; MLflow's database is below the folder unless it shall be elsewhere."""
    spec = stand_in_spec(folder, steps, strikes, resume=resume)
    tracker = Tracker(f"sqlite:///{database or folder / 'runs' / 'mlflow.db'}", folder / "runs", warn=print)
    try:
        with session(ClusterConfig()) as opened, open(os.devnull, "w") as nowhere:
            StandInExperiment(spec, Crews(opened), Console(file=nowhere)).run(tracker)
    finally:
        tracker.close()


def random_strikes(seed: int, steps: int, number: int) -> tuple[Strike, ...]:
    """That many faults at different steps, of random workers at random moments."""
    draw = random.Random(seed)
    strikes = []
    for step in draw.sample(range(steps), number):
        role, index = draw.choice(WHO)
        phase = draw.choice([phase for phase in PHASES if phase != "evaluate"])
        action = draw.choice(["kill", "kill", "kill", "stop"])
        after_s = draw.uniform(0, 0.2)
        strikes.append(Strike(action=action, role=role, index=index, step=step, phase=phase, after_s=after_s))
    return tuple(strikes)
