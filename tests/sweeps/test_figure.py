"""The figure of a comparison: a PNG, whatever the runs have and lack."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sweeps import figure
from sweeps.figure import COLORS, draw
from sweeps.summary import Curves

PNG = b"\x89PNG\r\n\x1a\n"


def curves(arm: str, seed: int, num_steps: int = 12, without: Sequence[str] = (), events: bool = False) -> Curves:
    keys = ("reward/mean", "mismatch/log_ppl_abs_diff", "gradient/norm", "response/length_mean", "scheduler/lr")
    rows: list[dict[str, float]] = [
        {"step": step, **{key: 1.0 + seed + step / 10 for key in keys if key not in without}}
        for step in range(num_steps)
    ]
    if events:
        rows[num_steps // 2] |= {"scheduler/event/surge": 1.0, "scheduler/event/decay": 1.0}
    return Curves(arm=arm, seed=seed, steps=np.arange(num_steps), rows=tuple(rows))


@pytest.mark.parametrize(
    "runs",
    [
        [curves(arm, seed, events=arm == "decay") for seed in range(3) for arm in ("baseline", "decay")],
        [curves("baseline", 0), curves("decay", 0, without=["gradient/norm", "scheduler/lr"])],
        [curves("baseline", 0, without=["mismatch/log_ppl_abs_diff"])],
        [curves("baseline", 0, num_steps=1)],
        [curves("baseline", 0, num_steps=3), curves("decay", 0, num_steps=12)],
        [curves(f"arm {i}", 0) for i in range(len(COLORS) + 2)],
    ],
    ids=[
        "several seeds",
        "a metric absent in one arm",
        "a metric absent everywhere",
        "one step",
        "ragged",
        "many arms",
    ],
)
def test_a_png_is_written_without_a_warning(runs: list[Curves], tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "comparison.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(runs, path, title="$demo_1: 50%")
    assert path.read_bytes().startswith(PNG)
    assert path.stat().st_size > 10_000


def test_an_earlier_figure_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "comparison.png"
    path.write_bytes(b"old")
    draw([curves("baseline", 0)], path, title="demo")
    assert path.read_bytes().startswith(PNG)


def test_smoothing_starts_at_the_first_value_and_passes_over_absent_ones() -> None:
    smoothed = figure._smoothed(np.array([np.nan, 1.0, np.nan, 2.0]))
    np.testing.assert_allclose(smoothed, [np.nan, 1.0, 1.0, 0.3 * 2.0 + 0.7 * 1.0])
