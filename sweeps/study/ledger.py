"""The record of a study, made from what Optuna and the runs' folders hold."""

import json
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from orchestrator.run.folder import METRICS, run_path
from sweeps.curves import read_rows
from sweeps.study.record import Accounting, ObjectiveRecord, SeedRecord, State, StudyRecord, TrialRecord
from sweeps.study.trial import BASELINE, REASON, SEEDS, arm_of
from sweeps.sweep_file import SweepFile

STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
OVER: tuple[State, ...] = ("complete", "pruned")  # as it shall be, with all the runs that it needs


def study_record(sweep: SweepFile, runs: Path, trials: Sequence[FrozenTrial]) -> StudyRecord:
    """The study as it stands.

    Args:
        sweep: its file.
        runs: folder of all runs.
        trials: as Optuna has them; those that nobody has begun are left out.
    """
    config, objective = sweep.baseline_config(), sweep.config.objective
    records = [_trial_record(trial) for trial in trials if trial.state in STATES]
    baseline = [run_path(runs, sweep.name, BASELINE, seed) / METRICS for seed in config.seeds] if sweep.shares else []
    return StudyRecord(
        name=sweep.name,
        direction=objective.direction,
        objective=ObjectiveRecord(metric=objective.metric, last=objective.last, aggregate=objective.aggregate),
        space={path: entry.model_dump(mode="json") for path, entry in sweep.config.space.items()},
        seeds=list(config.seeds),
        steps=config.steps,
        sharing=sweep.shares,
        trials=records,
        accounting=accounting(records, sum(len(read_rows(path)) for path in baseline if path.exists())),
    )


def accounting(trials: Sequence[TrialRecord], baseline_steps: int) -> Accounting:
    """What the trials' runs cost, and what they would have cost by themselves."""
    runs = [run for trial in trials for run in trial.seeds.values()]
    costless = [
        {run.source for run in trial.seeds.values()}
        for trial in trials
        if trial.state in OVER and trial.seeds and all(run.executed == 0 for run in trial.seeds.values())
    ]
    naive, executed = sum(run.steps for run in runs), sum(run.executed for run in runs)
    return Accounting(
        executed=executed + baseline_steps,
        saved=naive - executed,
        naive=naive,
        free=sum(sources == {BASELINE} for sources in costless),
        merged=sum(sources != {BASELINE} for sources in costless),
    )


def _trial_record(trial: FrozenTrial) -> TrialRecord:
    seeds = {seed: SeedRecord(**share) for seed, share in json.loads(trial.user_attrs.get(SEEDS, "{}")).items()}
    state = STATES[trial.state]
    return TrialRecord(
        number=trial.number,
        arm=arm_of(trial.number),
        state=state,
        params=trial.params,
        value=trial.value if state == "complete" else None,
        constraints=trial.constraints,
        reason=trial.user_attrs.get(REASON),
        seeds=seeds,
    )
