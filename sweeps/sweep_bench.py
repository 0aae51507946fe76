"""What a study spares by sharing steps: those that it trains, and its time, against trials that run by themselves."""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.bench.result import Figure, Result
from orchestrator.run.folder import METRICS, run_path
from sweeps.curves import read_rows
from sweeps.study.record import StudyRecord
from sweeps.sweep_cli import sweep
from sweeps.sweep_file import SweepFile

TARGET = 0.5  # steps that are trained, of those that the trials have
# The study leaves nothing behind, and its trials' steps do not slow each other, whatever its files say.
TEMPORARY = ["parallel=1", "storage=null", "changes.tracking.uri=null", "changes.checkpoint.storage=null"]


def measure(file: str, trials: int | None = None) -> Result:
    """Run a study in a folder that is removed afterwards.

    Args:
        file: of the sweep.
        trials: as many as are run; None: as the file says.

    Raises:
        ConfigError: the file, or its experiment, cannot be used.
        As `evenkeel sweep`.
    """
    with TemporaryDirectory(prefix="evenkeel-bench-") as place:
        runs = Path(place)
        changes = [*TEMPORARY, *([] if trials is None else [f"trials={trials}"])]
        name = SweepFile.read(file, changes).name
        started = time.perf_counter()
        sweep(file, changes, runs)
        took_s = time.perf_counter() - started
        record = StudyRecord.read(runs / name)
        figures = tuple(figures_of(record, took_s, alone_s(record, runs)))
    settings = {"file": file, "trials": len(record.trials), "seeds": record.seeds, "steps": record.steps}
    return Result(benchmark="sweep", settings=settings, figures=figures)


def alone_s(record: StudyRecord, runs: Path) -> float:
    """Seconds of all steps that the trials have, the shared ones as long as they took where they were trained.

    Start and end of the runs are not in it, nor their checkpoints.

    Args:
        record: of the study.
        runs: folder of all runs.
    """
    places = [
        run_path(runs, record.name, trial.arm, int(seed)) / METRICS for trial in record.trials for seed in trial.seeds
    ]
    rows = (row for place in places if place.exists() for row in read_rows(place))
    return sum(row["time/step"] + row.get("time/record", 0.0) for row in rows)


def figures_of(record: StudyRecord, took_s: float, naive_s: float) -> Iterator[Figure]:
    """Steps and time, as shares of what trials by themselves would need.

    Args:
        record: of the study.
        took_s: seconds of the whole study, from its start to its report.
        naive_s: seconds of all steps that the trials have.
    """
    account = record.accounting
    share = account.executed / account.naive
    yield Figure(name="training steps executed / steps of all trials", value=share, target=TARGET)
    yield Figure(name="executed, the baseline's included", value=account.executed, unit="steps")
    yield Figure(name="of all trials", value=account.naive, unit="steps")
    yield Figure(name="time of the study / time of all trials' steps", value=took_s / naive_s)
    yield Figure(name="of the study, with start, checkpoints and report", value=took_s, unit="s")
    yield Figure(name="of all trials' steps alone", value=naive_s, unit="s")
