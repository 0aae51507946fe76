"""What a step costs beyond its workers' own time, against the number of workers: real runs of timed stand-ins.

python -m orchestrator.bench.scale --rollout 1 16 256 --learner 1 64
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from actors.simulated.config import Phase
from actors.simulated.pace import critical_path_s
from cluster.config import ClusterConfig
from cluster.session import Session, session
from orchestrator.config import ExperimentConfig
from orchestrator.crew.crews import Crews
from orchestrator.experiment import Experiment
from orchestrator.model_files import find_model
from orchestrator.run.folder import METRICS
from orchestrator.run_spec import RunSpec
from orchestrator.task_problems import TaskFiles
from orchestrator.tracking.tracker import Tracker

FILE = "scale"  # how messages call the experiment, which is in no file
WARM_UP = 3  # steps that do not count: connections open, caches fill
PHASES: dict[str, Phase | None] = {
    "rollout": "generate",
    "score": None,
    "gradients": "gradients",
    "decide": None,
    "apply": "apply",
    "publish": "publish",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """A step's wall-clock time and what of it no stand-in takes for itself, in seconds.

    Example:
        Overhead(step=2.61, own=2.43, by_phase={"rollout": 0.06, "score": 0.02, ..., "between": 0.01})
    """

    step: float  # from the end of the step before to its own
    own: float  # the slowest stand-in's, summed over the phases
    by_phase: dict[str, float]  # beyond that; `between` is what lies between the steps, recording included

    @property
    def beyond(self) -> float:
        """What the stand-ins do not account for."""
        return self.step - self.own


def experiment(rollouts: int, learners: int, steps: int, changes: dict[str, Any] | None = None) -> ExperimentConfig:
    """The experiment that is measured: 2 responses to each of 256 prompts, however many workers share them."""
    tree = {
        "name": f"scale-{rollouts}-{learners}",
        "model": {"path": "embedded"},
        "task": {"kind": "arithmetic", "digits": 3},
        "rollout": {
            "workers": rollouts,
            "cpus_per_worker": 0.004,
            "prompts_per_step": 256,
            "group_size": 2,
            "max_response_tokens": 64,
        },
        "learner": {"workers": learners, "cpus_per_worker": 0.004},
        "scheduler": {"kind": "length_triggered", "lr": 1e-4},
        "steps": steps,
        "checkpoint": None,
        "simulation": {},
    }
    return ExperimentConfig.model_validate({**tree, **(changes or {})})


def overheads(config: ExperimentConfig, rows: Sequence[dict[str, float]]) -> list[Overhead]:
    """Of every step but the first, from a run's metrics; the weight version is the step's number where all update."""
    assert config.simulation is not None
    found = []
    for before, row in pairwise(rows):
        own = critical_path_s(config.simulation, config.rollout.workers, config.learner.workers, int(row["step"]))
        beyond = {
            name: row[f"time/{name}"] - (own[own_phase] if own_phase else 0.0) for name, own_phase in PHASES.items()
        }
        step = row["time/ended_s"] - before["time/ended_s"]
        between = step - sum(row[f"time/{name}"] for name in PHASES)
        found.append(Overhead(step=step, own=sum(own.values()), by_phase={**beyond, "between": between}))
    return found


def measure(config: ExperimentConfig, opened: Session) -> list[Overhead]:
    """Run it, and take its overheads; the steps of the warm-up are left out."""
    with TemporaryDirectory(prefix="evenkeel-scale-") as place:
        folder = Path(place) / "run"
        spec = RunSpec(
            config=config,
            model=find_model(config, FILE),
            task=TaskFiles.open(config, FILE),
            arm="default",
            seed=0,
            folder=folder,
            quiet=True,
        )
        tracker = Tracker(f"sqlite:///{place}/mlflow.db", Path(place), warn=print)
        try:
            with open(os.devnull, "w", encoding="utf-8") as nowhere:
                Experiment(spec, Crews(opened), Console(file=nowhere)).run(tracker)
        finally:
            tracker.close()
        rows = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return overheads(config, rows)[WARM_UP - 1 :]


def table(measured: Sequence[tuple[ExperimentConfig, Sequence[Overhead]]]) -> Table:
    """Medians in milliseconds, one row for each size; of the overhead also the extremes: a busy machine adds to it."""
    phases = [*PHASES, "between"]
    shown = Table("rollout workers", "learner ranks", "step ms", "own ms", "overhead ms", "least", "most", *phases)
    for config, steps in measured:
        medians = [statistics.median(one.by_phase[phase] for one in steps) for phase in phases]
        beyond = [one.beyond for one in steps]
        numbers = [
            statistics.median(one.step for one in steps),
            statistics.median(one.own for one in steps),
            statistics.median(beyond),
            min(beyond),
            max(beyond),
            *medians,
        ]
        shown.add_row(
            str(config.rollout.workers), str(config.learner.workers), *(f"{1000 * number:.0f}" for number in numbers)
        )
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table; no timed test."""
    parser = argparse.ArgumentParser(description="overhead per step against the number of workers, with stand-ins")
    parser.add_argument("--rollout", type=int, nargs="+", default=[1, 4, 16, 64, 256], help="rollout workers")
    parser.add_argument("--learner", type=int, nargs="+", default=[1, 4, 16, 64], help="learner ranks")
    parser.add_argument("--steps", type=int, default=12, help="of each run")
    options = parser.parse_args(arguments)
    measured = []
    with session(ClusterConfig()) as opened:
        for rollouts, learners in sizes(options.rollout, options.learner):
            config = experiment(rollouts, learners, options.steps)
            measured.append((config, measure(config, opened)))
    Console(width=160).print(table(measured))


def sizes(rollouts: Sequence[int], learners: Sequence[int]) -> list[tuple[int, int]]:
    """Each number of rollout workers with as many learners at most as given, and the most of them with all numbers.

    Example:
        >>> sizes([1, 16, 256], [1, 64])
        [(1, 1), (16, 16), (256, 64), (256, 1)]
    """
    along = [(number, min(number, max(learners))) for number in rollouts]
    return along + [(max(rollouts), number) for number in learners if (max(rollouts), number) not in along]


if __name__ == "__main__":
    main()
