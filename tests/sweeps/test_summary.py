"""The curves of recorded runs, and the table that sets arms side by side, by hand."""

import json
import math
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.run_folder import METRICS
from sweeps.summary import WINDOW, Curves, summary_table, window_means


def curves(rows: Sequence[dict[str, float]], arm: str = "decay", seed: int = 0) -> Curves:
    steps = np.array([int(row["step"]) for row in rows], np.int64)
    return Curves(arm=arm, seed=seed, steps=steps, rows=tuple(rows))


def rewards(*values: float) -> list[dict[str, float]]:
    return [
        {"step": step, "reward/mean": value, "response/length_mean": 10.0 + step, "scheduler/lr": 1e-6}
        for step, value in enumerate(values)
    ]


def printed(runs: Sequence[Curves]) -> dict[str, list[str]]:
    """The first line of the table's cells by heading, and the arms."""
    out = StringIO()
    Console(file=out, width=300).print(summary_table(runs))
    lines = [line for line in out.getvalue().splitlines() if "│" in line or "┃" in line]
    cells = [[cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")] for line in lines]
    return {"arms": cells[0][1:], **{row[0]: row[1:] for row in cells[1:] if row[0]}}


def test_a_run_folder_is_read_line_by_line(tmp_path: Path) -> None:
    rows = [{"step": 3, "reward/mean": 0.5}, {"step": 7, "scheduler/event/surge": 1.0}]
    (tmp_path / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = Curves.read(tmp_path, "decay", 1)
    assert (run.arm, run.seed, run.steps.tolist(), run.rows) == ("decay", 1, [3, 7], tuple(rows))


def test_a_run_that_recorded_nothing_has_no_steps(tmp_path: Path) -> None:
    assert len(Curves.read(tmp_path, "decay", 0).steps) == 0
    (tmp_path / METRICS).write_text('{"step": 0, "rew')
    assert len(Curves.read(tmp_path, "decay", 0).steps) == 0


def test_an_absent_metric_is_not_a_number() -> None:
    run = curves([{"step": 0, "a": 1.0}, {"step": 1}, {"step": 2, "a": 3.0}])
    np.testing.assert_array_equal(run.column("a"), [1.0, np.nan, 3.0])
    assert np.isnan(run.column("no such metric")).all()


def test_events_come_with_their_steps_in_order() -> None:
    run = curves([{"step": 4, "scheduler/event/surge": 1.0, "scheduler/event/decay": 1.0, "a": 2.0}, {"step": 9}])
    assert run.events() == [(4, "surge"), (4, "decay")]


def test_windows_are_five_steps_without_the_absent_ones() -> None:
    values = np.array([1.0, np.nan, 2.0, 3.0, 4.0, 5.0, np.nan, 11.0])
    assert window_means(values).tolist() == pytest.approx([3.0, 5.0])
    assert window_means(np.array([1.0, 2.0])).tolist() == [1.5]
    assert np.isnan(window_means(np.array([np.nan]))).tolist() == [True]
    assert np.isnan(window_means(np.array([]))).tolist() == [True]


@given(st.lists(st.floats(-10, 10) | st.just(float("nan")), max_size=30))
def test_every_window_mean_lies_between_the_extremes(values: list[float]) -> None:
    present = [value for value in values if not math.isnan(value)]
    means = window_means(np.array(values))
    assert len(means) == max(1, len(present) - WINDOW + 1)
    if present:
        assert (means >= min(present) - 1e-9).all() and (means <= max(present) + 1e-9).all()


def test_the_table_has_a_column_per_arm_with_means_over_its_seeds() -> None:
    constant = curves(rewards(*[0.0] * 5, 0.5), arm="baseline")
    one = curves(rewards(*[0.1] * 5, 0.6, *[0.2] * 5), seed=0)
    other = curves(rewards(*[0.3] * 5, 0.8), seed=4)
    table = printed([constant, one, other])
    assert table["arms"] == ["baseline", "decay"]
    assert table["seeds"] == ["0", "0, 4"]
    assert table["steps"] == ["6", "6"]
    # Best: 0.1 in a window with the 0.6 of run 0 (4 x 0.2 + 0.6 = 1.4 / 5 = 0.28), and 0.4 of run 4.
    assert table["reward: first, best, last"] == ["0.000, 0.100, 0.100", "0.200, 0.340, 0.300"]
    assert table["length: first, last"] == ["12.0, 13.0", "12.0, 15.5"]
    assert table["learning rate: last"] == ["1.00e-06", "1.00e-06"]


def test_what_happened_to_the_learning_rate_is_told_by_seed() -> None:
    rows = rewards(0.1, 0.2)
    rows[1]["scheduler/event/decay"] = 1.0
    table = printed([curves(rows, seed=3)])
    assert table["events"] == ["seed 3: decay 1"]
    assert printed([curves(rewards(0.1))])["events"] == ["seed 0: none"]


def test_a_metric_that_no_run_has_leaves_the_table_standing() -> None:
    table = printed([curves(rewards(0.1, 0.2))])
    assert table["gradient norm: first, last"] == ["nan, nan"]
