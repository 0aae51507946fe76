"""One trial: its parameters, its runs, each forked from what was run before, and what they are worth."""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from optuna.trial import Trial, TrialState
from rich.console import Console

from orchestrator.checkpoints.place import Place
from orchestrator.cli import PLAIN
from orchestrator.config import CheckpointConfig, ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.crew.crews import Crews
from orchestrator.experiment import Experiment
from orchestrator.run.folder import METRICS, run_path
from orchestrator.run.resume import check_resumable
from orchestrator.run_spec import RunSpec
from orchestrator.tracking.tracker import TrackedRun, Tracker
from sweeps.curves import read_rows
from sweeps.fork.fork import read_fork
from sweeps.fork.making import make_fork
from sweeps.fork.plan import best_source
from sweeps.objective import constraint_values, objective_value
from sweeps.space import ask
from sweeps.study.record import SeedRecord
from sweeps.study.watch import TrialWatch
from sweeps.sweep_file import SweepFile

BASELINE = "baseline"
# What a trial's attributes at Optuna say beside its parameters.
SEEDS, REASON = "evenkeel.seeds", "evenkeel.reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """What all runs of a study have in common.

    Example:
        Grounds(sweep=sweep, template=spec, runs=Path("runs"), crews=crews, tracker=tracker, parent=parent,
                console=console, interrupted=stop.is_set)
    """

    sweep: SweepFile
    template: RunSpec  # a run of the baseline; others differ in config, arm, seed and folder
    runs: Path
    crews: Crews
    tracker: Tracker
    parent: TrackedRun
    console: Console
    interrupted: Callable[[], bool]

    @property
    def seeds(self) -> Sequence[int]:
        """Of every trial."""
        return self.template.config.seeds

    def spec(self, config: ExperimentConfig, arm: str, seed: int) -> RunSpec:
        """A run of the study, which goes on with what is in its folder."""
        folder = run_path(self.runs, self.sweep.name, arm, seed)
        sharing = self.sweep.config.sharing
        if self.sweep.shares and (arm == BASELINE or sharing.forks_from == "any"):
            storage = config.checkpoint.storage if config.checkpoint else None
            ring = CheckpointConfig(every=sharing.every, keep=config.steps // sharing.every + 1, storage=storage)
            config = config.model_copy(update={"checkpoint": ring})
        return replace(self.template, config=config, arm=arm, seed=seed, folder=folder, resume=True, quiet=True)

    def run(self, spec: RunSpec) -> None:
        """Train.

        Raises:
            ConfigError: what is in the run's folder is of another config, as when another study has left it.
            Others as `Experiment.run`.
        """
        check_resumable(spec.folder, spec.config, spec.seed, str(spec.folder))
        Experiment(spec, self.crews, self.console).run(self.tracker, self.parent)

    def warn_of(self, path: Place, reason: str) -> None:
        """Say why a checkpoint or a run is not shared."""
        self.console.print(f"warning: {path} is not gone on from: {reason}", style="yellow", **PLAIN)


class TrialRuns:
    """The runs of one trial.

    TrialRuns(grounds, 7).run(trial)
    """

    def __init__(self, grounds: Grounds, number: int) -> None:
        """Define them; nothing is run yet."""
        self._grounds = grounds
        self._number = number
        self.arm = arm_of(number)

    def run(self, trial: Trial) -> tuple[TrialState, float | None]:
        """Run all seeds; returns how the trial ends, and its value when it is complete.

        Raises:
            KeyboardInterrupt: the study is being ended.
            Others as `Experiment.run`.
        """
        grounds = self._grounds
        params = ask(grounds.sweep.config.space, trial)
        try:
            config = grounds.sweep.trial_config(params)
        except ConfigError as error:  # fine at all corners of the space, and not here
            trial.set_user_attr(REASON, str(error))
            return TrialState.FAIL, None
        shares: dict[int, SeedRecord] = {}
        for place, seed in enumerate(grounds.seeds):
            spec = grounds.spec(config, self.arm, seed)
            try:
                reason = self._run_seed(spec, trial, place)
            except Exception:
                with suppress(OSError, ConfigError):  # what it failed with is to be told
                    _note_share(trial, shares, spec)
                raise
            _note_share(trial, shares, spec)
            if reason is not None:
                trial.set_user_attr(REASON, reason)
                return TrialState.PRUNED, None
        return self._judge(trial, [grounds.spec(config, self.arm, seed).folder for seed in grounds.seeds])

    def _run_seed(self, spec: RunSpec, trial: Trial, place: int) -> str | None:
        """Run one seed; why the trial ends with it, if it does."""
        grounds, config = self._grounds, self._grounds.sweep.config
        if grounds.sweep.shares and not spec.folder.exists():
            candidates = list(earlier_runs(grounds, self._number, spec.seed))
            plan = best_source(spec.config, spec.seed, candidates)
            make_fork(plan, spec.folder, spec.config, spec.seed, grounds.warn_of)
        fork = read_fork(spec.folder)
        watch = TrialWatch(
            trial,
            metric=config.objective.metric,
            offset=place * spec.config.steps,
            prune_on_collapse=config.prune_on_collapse,
            stops_itself=spec.config.stability.on_collapse == "stop",
            interrupted=grounds.interrupted,
        )
        tags = {"trial.number": str(self._number)} | ({"forked_from": fork.source} if fork else {})
        grounds.run(replace(spec, tags=tags, watch=watch))
        return watch.reason

    def _judge(self, trial: Trial, folders: Sequence[Path]) -> tuple[TrialState, float | None]:
        """The trial's value, the mean over its seeds, and its constraints, in which the worst seed counts."""
        config = self._grounds.sweep.config
        runs = [read_rows(folder / METRICS) for folder in folders]
        for name, value in constraint_values(config.constraints, runs).items():
            if name not in trial.constraints:
                trial.set_constraint(name, value)
        values = [objective_value(config.objective, rows) for rows in runs]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            trial.set_user_attr(REASON, f"{config.objective.metric} was never recorded")
            return TrialState.FAIL, None
        return TrialState.COMPLETE, fmean(known)


def arm_of(number: int) -> str:
    """`trial-007` of 7."""
    return f"trial-{number:03d}"


def earlier_runs(grounds: Grounds, number: int, seed: int) -> Iterable[Path]:
    """Folders of the runs with this seed that a trial may share steps with, the baseline first."""
    arms = [BASELINE]
    if grounds.sweep.config.sharing.forks_from == "any":
        arms += [arm_of(other) for other in range(grounds.sweep.config.trials) if other != number]
    for arm in arms:
        folder = run_path(grounds.runs, grounds.sweep.name, arm, seed)
        if (folder / METRICS).exists():
            yield folder


def _note_share(trial: Trial, shares: dict[int, SeedRecord], spec: RunSpec) -> None:
    """Add to the trial what its run with one more seed has cost."""
    shares[spec.seed] = _share(spec.folder)
    trial.set_user_attr(SEEDS, json.dumps({str(key): share.model_dump() for key, share in shares.items()}))


def _share(folder: Path) -> SeedRecord:
    steps = len(read_rows(folder / METRICS))
    fork = read_fork(folder)
    if fork is None:
        return SeedRecord(steps=steps, executed=steps)
    return SeedRecord(steps=steps, executed=steps - fork.forked_at, source=fork.source, forked_at=fork.forked_at)
