"""What is shown and kept of a study at its end: a table, the report, the best parameters, Optuna's plots."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console
from rich.table import Table

from orchestrator.cli import PLAIN
from orchestrator.records import RunCard
from orchestrator.run.folder import RunFolderFull
from orchestrator.tracking.tracker import TrackedRun, Tracker, origin_tags
from sweeps.report import REPORT, write_report
from sweeps.report_runs import recorded_runs
from sweeps.study.ledger import study_record
from sweeps.study.record import STUDY, StudyRecord, TrialRecord
from sweeps.study.storage import StudyStore
from sweeps.sweep_file import SweepFile

PLOTS = "optuna.html"


def parent_run(sweep: SweepFile, uid: str, tracker: Tracker) -> TrackedRun:
    """The study at MLflow, of which all runs are children."""
    config = sweep.baseline_config()
    card = RunCard(
        uid=uid,
        experiment=config.tracking.experiment or sweep.name,
        name=f"{sweep.name} study",
        tags={"study": sweep.name, "seeds": ", ".join(map(str, config.seeds)), **origin_tags()},
        params=sweep.config.model_dump(mode="json", include={"space", "objective", "constraints", "trials", "sharing"}),
    )
    return TrackedRun(tracker, card)


@contextmanager
def concluding(sweep: SweepFile, runs: Path, store: StudyStore, parent: TrackedRun, console: Console) -> Iterator[None]:
    """Conclude the study after the with-block, also when that has failed or was interrupted: then as far as it can be
    done, as the failure is what the user must hear of.
    """
    status = "FAILED"
    try:
        try:
            yield
        except BaseException as failure:
            status = "KILLED" if isinstance(failure, KeyboardInterrupt) else "FAILED"
            try:
                conclude(sweep, runs, store, parent, console)
            except Exception as error:
                told = f"warning: no table or no report of the study: {' '.join(str(error).split())}"
                with suppress(OSError):  # the screen may be a file on the same full disk
                    console.print(told, style="yellow", **PLAIN)
            raise
        conclude(sweep, runs, store, parent, console)
        status = "FINISHED"
    finally:
        parent.end(status)


def conclude(sweep: SweepFile, runs: Path, store: StudyStore, parent: TrackedRun, console: Console) -> None:
    """Print the table, write report and plots, and give MLflow a copy.

    Raises:
        RunFolderFull: the disk refuses; the table is shown all the same.
    """
    folder = runs / sweep.name
    record = study_record(sweep, runs, store.trials())
    if record.trials:
        console.print(trial_table(record), markup=False)
    console.print(accounts(record), **PLAIN)
    best = record.best
    if best is None:
        console.print("no trial has finished within the constraints", **PLAIN)
    else:
        parent.set_tags({"best.trial": str(best.number), "best.value": f"{best.value:.6g}"})
        parent.set_tags({f"best.{path}": str(value) for path, value in best.params.items()})
    plots = _plots(store.study(), record)
    try:
        record.write(folder)
        if plots:
            (folder / PLOTS).write_text(plots, encoding="utf-8")
    except OSError as error:
        raise RunFolderFull(folder, error) from error
    write_report(recorded_runs(folder), folder, sweep.name, console)
    for name in [STUDY, REPORT, PLOTS] if plots else [STUDY, REPORT]:
        parent.log_artifact(folder / name)


def trial_table(record: StudyRecord) -> Table:
    """A line per trial, by number; the best one has a star."""
    table = Table("trial", "state", "value", "parameters", "steps run", "from", title=record.name, title_justify="left")
    best = record.best
    for trial in record.trials:
        state = trial.state if trial.feasible else f"{trial.state}, breaks a constraint"
        name = f"{trial.number}{' *' if trial is best else ''}"
        table.add_row(name, state, _written(trial.value), parameters(trial, record.space), *_cost(trial))
    return table


def parameters(trial: TrialRecord, space: Mapping[str, Mapping[str, Any]]) -> str:
    """`kind length_triggered, ratio 1.4`: what the trial chose where there was a choice."""
    free = [path for path in trial.params if len(space.get(path, {}).get("choices", "ab")) > 1]
    return ", ".join(f"{path.removeprefix('scheduler.')} {_written(trial.params[path])}" for path in free)


def accounts(record: StudyRecord) -> str:
    """`800 training steps instead of 1,790 (45%): ...` in one sentence."""
    account = record.accounting
    share = f" ({account.executed / account.naive:.0%})" if account.naive else ""
    return (
        f"{account.executed:,} training steps instead of {account.naive:,}{share}: {account.saved:,} shared, "
        f"{account.free} trials free, {account.merged} merged"
    )


def _cost(trial: TrialRecord) -> tuple[str, str]:
    runs = trial.seeds.values()
    steps = " ".join(f"{run.executed}/{run.steps}" for run in runs)
    sources = " ".join(f"{run.source}@{run.forked_at}" if run.source else "-" for run in runs)
    return steps, sources


def _written(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _plots(study: optuna.Study, record: StudyRecord) -> str | None:
    """Optuna's own plots on one page that needs no network; None before there are two values to compare."""
    from optuna import visualization  # noqa: PLC0415 - plotly takes a second

    if len({trial.value for trial in record.trials if trial.state == "complete"}) < 2:  # noqa: PLR2004
        return None
    drawings = [
        visualization.plot_optimization_history(study),
        visualization.plot_param_importances(study),
        visualization.plot_slice(study),
        visualization.plot_parallel_coordinate(study),
    ]
    parts = [drawn.to_html(full_html=False, include_plotlyjs=not place) for place, drawn in enumerate(drawings)]
    return f"<!doctype html><meta charset='utf-8'><title>{record.name}</title>{''.join(parts)}"
