"""The data behind the page as CSV, in full precision."""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sweeps.curves import Curves
from sweeps.html_report.figures import drawn_keys
from sweeps.html_report.tables import Cell, trial_rows
from sweeps.replay_output import replacing
from sweeps.study.record import StudyRecord

CURVES_HEADER = ("arm", "seed", "step", "key", "value")


def write_lines(path: Path, header: Sequence[str], lines: Iterable[Sequence[Cell]]) -> None:
    """A CSV file of these lines; None is an empty field. An earlier file is replaced at once, or not at all.

    Raises:
        ConfigError: the file cannot be written.
    """
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(lines)


def write_curves(runs: Sequence[Curves], path: Path) -> None:
    """A line per value that the figures draw: arm, seed, step, key, value.

    Raises:
        ConfigError: the file cannot be written.
    """
    write_lines(path, CURVES_HEADER, _curve_lines(runs))


def write_trials(study: StudyRecord, path: Path) -> None:
    """A line per trial, with the columns of the page's table.

    Raises:
        ConfigError: the file cannot be written.
    """
    header, lines = trial_rows(study)
    write_lines(path, header, lines)


def _curve_lines(runs: Sequence[Curves]) -> Iterator[list[Cell]]:
    keys = drawn_keys(runs)
    for run in runs:
        for key in keys:
            for step, value in zip(run.steps.tolist(), run.column(key).tolist(), strict=True):
                if not math.isnan(value):
                    yield [run.arm, run.seed, step, key, value]
