"""The curves of a recorded run, and the table that sets arms side by side."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from orchestrator.run_folder import METRICS, read_metrics

WINDOW = 5  # steps in the means of the table
EVENT = "scheduler/event/"


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
    """One row per arm: means over its seeds of 5-step means, and what happened to the learning rate."""
    table = Table(title=f"arms, means over seeds of {WINDOW}-step means", title_justify="left")
    headings = ("arm", "seeds", "steps", "reward first", "best", "last", "length first", "last", "mismatch last")
    for heading in (*headings, "grad norm last", "lr last", "events (seed: event@step)"):
        table.add_column(heading, justify="left" if heading in ("arm", "events (seed: event@step)") else "right")
    by_arm: dict[str, list[Curves]] = defaultdict(list)
    for curve in curves:
        by_arm[curve.arm].append(curve)
    for arm, runs in by_arm.items():
        table.add_row(arm, str(len(runs)), str(min(len(run.steps) for run in runs)), *_cells(runs))
    return table


def _cells(runs: Sequence[Curves]) -> list[str]:
    def mean(key: str, pick: int | None) -> float:
        means = [window_means(run.column(key)) for run in runs]
        return float(np.mean([one.max() if pick is None else one[pick] for one in means]))

    events = "; ".join(
        f"{run.seed}: " + (", ".join(f"{event}@{step}" for step, event in run.events()) or "none") for run in runs
    )
    return [
        f"{mean('reward/mean', 0):.3f}",
        f"{mean('reward/mean', None):.3f}",
        f"{mean('reward/mean', -1):.3f}",
        f"{mean('response/length_mean', 0):.1f}",
        f"{mean('response/length_mean', -1):.1f}",
        f"{mean('mismatch/log_ppl_abs_diff', -1):.2e}",
        f"{mean('gradient/norm', -1):.3f}",
        f"{np.mean([run.column('scheduler/lr')[-1] for run in runs]):.2e}",
        events,
    ]
