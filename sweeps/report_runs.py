"""The recorded runs that a report is about."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.run.folder import METRICS
from orchestrator.stability import StabilityConfig
from sweeps.curves import Curves

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


def recorded_runs(folder: Path, stability: StabilityConfig | None = None) -> list[Curves]:
    """All runs `<arm>/seed-<n>/` that recorded a step: the arm `baseline` first, the others by name; seeds in order.

    Runs that were moved aside (`seed-<n>.old-<k>`) are left out.

    Args:
        folder: of an experiment.
        stability: what counts as a collapse; None takes what each run's own config says.

    Raises:
        ConfigError: one of them has a file that cannot be used.
    """
    found = [
        (path.parents[1].name, int(seed[1]), path.parent)
        for path in folder.glob(f"*/*/{METRICS}")
        if (seed := SEED_FOLDER.fullmatch(path.parent.name))
    ]
    found.sort(key=lambda run: (run[0] != REFERENCE, run[0], run[1]))
    runs = [Curves.read(path, arm, seed) for arm, seed, path in found]
    runs = [run for run in runs if len(run.steps)]
    return runs if stability is None else [replace(run, stability=stability) for run in runs]


def check_any(runs: Sequence[Curves], folder: Path) -> None:
    """Refuse a folder without recorded runs.

    Raises:
        ConfigError: there are none.
    """
    if not runs:
        raise ConfigError(str(folder), "", MISSING, f"recorded runs: <arm>/seed-<n>/{METRICS} with at least one step")
