"""The report on runs that are there: which they are, its tables, its figure, and its figures as CSV."""

import csv
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from actors.lr_policies.detector import DetectorConfig
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.run.folder import CONFIG, METRICS
from orchestrator.stability import StabilityConfig
from sweeps.curves import Curves
from sweeps.figure import draw
from sweeps.lead_times import lead_time_table, lead_times
from sweeps.measures import measures
from sweeps.summary import summary_tables
from sweeps.targets import check_targets

FIGURE = "comparison.png"
REFERENCE = "baseline"  # the arm of this name comes first: the others are compared with it
SEED_FOLDER = re.compile(r"seed-(\d+)")


def find_folder(name: str, runs: Path) -> Path:
    """The folder of an experiment's runs: that of this name under `runs`, or else this path.

    Raises:
        ConfigError: there is neither.
    """
    for folder in (runs / name, Path(name)):
        if name and os.path.isdir(folder):
            return folder
    raise ConfigError("FOLDER", "", name, f"a folder, or the name of one in {runs}")


def check_files(figure: Path, csv: Path | None, folder: Path, detectors: Path | None) -> None:
    """Refuse what cannot be written to, before anything is.

    Raises:
        ConfigError: as `check_targets`, for which all runs and the detectors are sources; or the figure is no .png.
    """
    recorded = [path for name in (METRICS, CONFIG) for path in folder.glob(f"*/*/{name}")]
    sources = [("a run's own", path) for path in recorded] + ([("the detectors", detectors)] if detectors else [])
    check_targets({"--out": figure, "--csv": csv}, sources)
    if figure.suffix.lower() != ".png":
        raise ConfigError("--out", "", str(figure), "a file name that ends in .png")


def read_runs(folder: Path, stability: StabilityConfig | None = None) -> list[Curves]:
    """All runs `<arm>/seed-<n>/` that recorded a step: the arm `baseline` first, the others by name; seeds in order.

    Runs that were moved aside (`seed-<n>.old-<k>`) are left out.

    Args:
        folder: of an experiment.
        stability: what counts as a collapse; None takes what each run's own config says.

    Raises:
        ConfigError: there is none, or one of them has a file that cannot be used.
    """
    found = [
        (path.parents[1].name, int(seed[1]), path.parent)
        for path in folder.glob(f"*/*/{METRICS}")
        if (seed := SEED_FOLDER.fullmatch(path.parent.name))
    ]
    found.sort(key=lambda run: (run[0] != REFERENCE, run[0], run[1]))
    runs = [Curves.read(path, arm, seed) for arm, seed, path in found]
    runs = [run for run in runs if len(run.steps)]
    if not runs:
        raise ConfigError(str(folder), "", MISSING, f"recorded runs: <arm>/seed-<n>/{METRICS} with at least one step")
    return runs if stability is None else [replace(run, stability=stability) for run in runs]


def print_tables(runs: Sequence[Curves], detectors: Mapping[str, DetectorConfig], console: Console) -> None:
    """The table of arms, their differences, and the lead times of the detectors, as far as there are any."""
    unlimited = console.options.update(max_width=10_000)
    for table in summary_tables(runs, lambda table: console.measure(table, options=unlimited).minimum <= console.width):
        console.print(table, markup=False)  # names are shown as they are
    if detectors:
        console.print(lead_time_table(lead_times(runs, detectors)), markup=False)


def write_figure(runs: Sequence[Curves], path: Path, title: str, console: Console) -> None:
    """Draw the figure and say where it is.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        draw(runs, path, title)
    except OSError as error:
        raise ConfigError(str(path), "", MISSING, f"a figure that can be written ({error.strerror})") from None
    console.print(f"figure: {path}", highlight=False, markup=False, soft_wrap=True)


def write_csv(runs: Sequence[Curves], path: Path) -> None:
    """A line per run with the figures behind the tables, in full precision; empty where a run has none.

    Raises:
        ConfigError: the file cannot be written.
    """
    columns = measures(runs)
    header = ["arm", "seed", "steps", "collapse_step", "collapse_reason"]
    header += [re.sub(r"\W+", "_", measure.heading) for measure in columns]
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for run in runs:
                verdict = run.verdict()
                collapse = [verdict.step, verdict.reason] if verdict else ["", ""]
                figures = ["" if math.isnan(value := measure.of(run)) else value for measure in columns]
                writer.writerow([run.arm, run.seed, len(run.steps), *collapse, *figures])
    except OSError as error:
        raise ConfigError("--csv", "", str(path), f"a file that can be written ({error.strerror})") from None
