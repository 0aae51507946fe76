"""The curves of a recorded run, and the table that sets arms side by side."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from orchestrator.run_folder import METRICS, read_metrics

WINDOW = 5  # steps in the means of the table
EVENT = "scheduler/event/"
MISMATCH = "mismatch/log_ppl_abs_diff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """A recorded run, column by column.

    Example:
        Curves(arm="decay", seed=0, steps=array([0, 1]), rows=({"reward/mean": 0.2}, {"reward/mean": 0.3}))
    """

    arm: str
    seed: int
    steps: NDArray[np.int64]  # [N]
    rows: tuple[dict[str, float], ...]  # [N] metrics by key

    @classmethod
    def read(cls, folder: Path, arm: str, seed: int) -> "Curves":
        """What a run folder has recorded so far; no steps when it has not got that far."""
        rows = read_metrics(folder) if (folder / METRICS).exists() else []
        return cls(arm=arm, seed=seed, steps=np.array([int(row["step"]) for row in rows], np.int64), rows=tuple(rows))

    def column(self, key: str) -> NDArray[np.float64]:
        """[N] values of a metric, NaN where it is absent."""
        return np.array([row.get(key, np.nan) for row in self.rows], np.float64)

    def events(self) -> list[tuple[int, str]]:
        """(step, event) of everything that happened to the learning rate, in order."""
        return [
            (int(row["step"]), key.removeprefix(EVENT)) for row in self.rows for key in row if key.startswith(EVENT)
        ]


def window_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over WINDOW consecutive steps, NaN left out; one mean of everything when there are fewer."""
    present = values[~np.isnan(values)]
    if len(present) == 0:
        return np.array([np.nan])
    width = min(WINDOW, len(present))
    return np.convolve(present, np.ones(width) / width, mode="valid")


def summary_table(curves: Sequence[Curves]) -> Table:
    """A column per arm: means over its seeds of 5-step means, and what happened to the learning rate."""
    by_arm: dict[str, list[Curves]] = defaultdict(list)
    for curve in curves:
        by_arm[curve.arm].append(curve)
    table = Table("", *by_arm, title=f"means over seeds of {WINDOW}-step means", title_justify="left")
    columns = [_cells(runs) for runs in by_arm.values()]
    for heading in columns[0]:
        table.add_row(heading, *[column[heading] for column in columns])
    return table


def _cells(runs: Sequence[Curves]) -> dict[str, str]:
    def mean(key: str, pick: Callable[[NDArray[np.float64]], float]) -> float:
        return float(np.mean([pick(window_means(run.column(key))) for run in runs]))

    return {
        "seeds": ", ".join(str(run.seed) for run in runs),
        "steps": str(min(len(run.steps) for run in runs)),
        "reward: first, best, last": ", ".join(f"{mean('reward/mean', pick):.3f}" for pick in (_first, np.max, _last)),
        "length: first, last": ", ".join(f"{mean('response/length_mean', pick):.1f}" for pick in (_first, _last)),
        "mismatch: first, last": ", ".join(f"{mean(MISMATCH, pick):.2e}" for pick in (_first, _last)),
        "gradient norm: first, last": ", ".join(f"{mean('gradient/norm', pick):.3f}" for pick in (_first, _last)),
        "learning rate: last": f"{np.mean([run.column('scheduler/lr')[-1] for run in runs]):.2e}",
        "events": "\n".join(_events(run) for run in runs),
    }


def _events(run: Curves) -> str:
    return f"seed {run.seed}: " + (", ".join(f"{event} {step}" for step, event in run.events()) or "none")


def _first(values: NDArray[np.float64]) -> float:
    return float(values[0])


def _last(values: NDArray[np.float64]) -> float:
    return float(values[-1])
