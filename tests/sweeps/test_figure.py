"""The figure of a comparison: a PNG, whatever the runs have and lack, and what is drawn in it."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from sweeps.curves import Curves
from sweeps.figure import COLORS, band, build, draw, spans_a_decade

PNG = b"\x89PNG\r\n\x1a\n"
KEYS = (
    "reward/mean",
    "mismatch/log_ppl_abs_diff",
    "gradient/norm_smoothed",
    "gradient/noise_scale",
    "response/length_mean",
    "scheduler/lr",
)
NOISE = "gradient/noise_scale"


def curves(
    arm: str,
    seed: int,
    *,
    num_steps: int = 12,
    without: Sequence[str] = (),
    events: bool = False,
    collapsed: bool = False,
    validation: Sequence[str] = (),
) -> Curves:
    rows: list[dict[str, float]] = [
        {"step": step, **{key: 1.0 + seed + step / 10 for key in KEYS if key not in without}}
        for step in range(num_steps)
    ]
    if events:
        rows[num_steps // 2] |= {"scheduler/event/surge": 1.0, "scheduler/event/decay": 1.0}
    for row in rows:
        row.update({"gradient/nonfinite": 1.0} if collapsed else {})
        row.update({f"eval/{name}/avg@8": 0.5 for name in validation if row["step"] % 4 == 0})
    return Curves(arm=arm, seed=seed, steps=np.arange(num_steps), rows=tuple(rows))


def of(key: str, *values: float | None, seed: int = 0) -> Curves:
    rows = tuple({"step": step} if value is None else {"step": step, key: value} for step, value in enumerate(values))
    return Curves(arm="decay", seed=seed, steps=np.arange(len(rows)), rows=rows)


def titles(figure: Figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes if axis.axison and axis.get_title()]


@pytest.mark.parametrize(
    "runs",
    [
        [curves(arm, seed, events=arm == "decay") for seed in range(3) for arm in ("baseline", "decay")],
        [curves("baseline", 0), curves("decay", 0, without=["gradient/norm_smoothed", "scheduler/lr"])],
        [curves("baseline", 0, without=["mismatch/log_ppl_abs_diff"])],
        [curves("baseline", 0, num_steps=1)],
        [curves("baseline", 0, num_steps=3), curves("decay", 0, num_steps=12)],
        [curves(f"arm {i}", 0) for i in range(len(COLORS) + 2)],
        [curves("baseline", seed, num_steps=10 + seed, collapsed=True, validation=["a", "b"]) for seed in range(3)],
        [curves("baseline", 0, without=KEYS)],
        [curves("baseline", 0, without=["reward/mean"], collapsed=True)],
        [of(NOISE, 0.0, 1.0, 50.0, None)],
    ],
    ids=[
        "several seeds",
        "a metric absent in one arm",
        "a metric absent everywhere",
        "one step",
        "ragged",
        "many arms",
        "collapses and validation",
        "no metric at all",
        "a collapse without a reward",
        "a zero on a logarithmic axis",
    ],
)
def test_a_png_is_written_without_a_warning(runs: list[Curves], tmp_path: Path) -> None:
    path = tmp_path / "comparison.png"
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


def test_noise_and_validation_have_a_panel_only_where_they_were_recorded() -> None:
    assert titles(build([curves("baseline", 0, without=[NOISE])], "demo")) == [
        "reward",
        "mismatch: |log-ppl difference|",
        "gradient norm, smoothed",
        "response length in tokens (dotted: learning rate, right axis)",
    ]
    assert titles(build([curves("baseline", 0, validation=["held_out"])], "demo")) == [
        "reward",
        "validation accuracy: held_out avg@8",
        "mismatch: |log-ppl difference|",
        "gradient norm, smoothed",
        "gradient noise scale, in prompts",
        "response length in tokens (dotted: learning rate, right axis)",
    ]


def test_validation_is_drawn_at_the_steps_where_it_exists() -> None:
    figure = build([curves("baseline", 0, validation=["held_out"])], "demo")
    [axis] = [axis for axis in figure.axes if axis.get_title().startswith("validation")]
    [line] = axis.lines
    assert np.asarray(line.get_xdata()).tolist() == [0, 4, 8]


def test_one_seed_is_a_line_with_ticks_and_several_are_a_mean_with_a_band_and_none() -> None:
    one = build([curves("decay", 0, events=True)], "demo").axes[0]
    assert len(one.lines) == 1
    assert len(one.collections) == 2  # a tick for the surge and one for the decay
    several = build([curves("decay", seed, events=True) for seed in range(3)], "demo").axes[0]
    assert len(several.lines) == 1
    assert len(several.collections) == 1  # the band


def test_a_collapse_is_a_cross_on_the_reward_at_its_step_and_height() -> None:
    axis = build([curves("decay", 0, collapsed=True)], "demo").axes[0]
    [cross] = [line for line in axis.lines if line.get_marker() == "x"]
    assert (np.asarray(cross.get_xdata()).tolist(), np.asarray(cross.get_ydata()).tolist()) == ([9], [1.9])


def test_the_band_is_that_of_the_runs_which_still_go_on() -> None:
    steps, mean, low, high = band([of("a", 1.0, 2.0, 3.0), of("a", 5.0, None, seed=1)], "a")
    assert steps.tolist() == [0, 1, 2]
    assert (mean.tolist(), low.tolist(), high.tolist()) == ([3.0, 2.0, 3.0], [1.0, 2.0, 3.0], [5.0, 2.0, 3.0])
    assert [len(part) for part in band([of("b", 1.0)], "a")] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("values", "spans"),
    [
        ([1.0, 10.0], False),
        ([1.0, 10.1], True),
        ([0.0, 1.0, 5.0], False),
        ([np.nan, 0.1, 5.0], True),
        ([np.nan], False),
    ],
)
def test_an_axis_is_logarithmic_from_more_than_a_decade_on(values: list[float], spans: bool) -> None:
    assert spans_a_decade([np.array(values)]) is spans


def test_no_text_of_the_figure_overlaps_another() -> None:
    arms = ("baseline", "decay", "token_tis", "decay_tis", "lr_zero")
    runs = [curves(arm, seed, collapsed=True, validation=["a", "b"]) for arm in arms for seed in range(2)]
    figure = build([*runs, curves("alone", 0, events=True)], "demo")
    figure.canvas.draw()
    [legend] = figure.legends
    boxes = [axis.get_tightbbox() for axis in figure.axes if axis.get_title()]
    boxes += [legend.get_window_extent(), figure._supxlabel.get_window_extent()]  # type: ignore[attr-defined]
    overlapping = [
        (i, j)
        for i, one in enumerate(boxes)
        for j, other in enumerate(boxes[:i])
        if one and other and one.overlaps(other)
    ]
    assert overlapping == []


def test_every_arm_is_named_with_the_number_of_its_seeds() -> None:
    figure = build([curves("baseline", 0), curves("decay", 0), curves("decay", 1)], "demo")
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["baseline", "decay (2 seeds)"]
    assert legend.get_title().get_text() == "demo"
