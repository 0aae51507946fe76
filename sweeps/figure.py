"""The figure of a comparison: what was measured, panel by panel, a colour per arm."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from sweeps.curves import Curves
from sweeps.measures import validation_keys, validation_name
from sweeps.summary import by_arm

REWARD, LENGTH = "reward/mean", "response/length_mean"
MISMATCH, NOISE = "mismatch/log_ppl_abs_diff", "gradient/noise_scale"
PANELS = (
    (REWARD, "reward"),
    (MISMATCH, "mismatch: |log-ppl difference|"),
    ("gradient/norm_smoothed", "gradient norm, smoothed"),
    (NOISE, "gradient noise scale, in prompts"),
    (LENGTH, "response length in tokens"),
)
OPTIONAL = (NOISE,)  # no panel when no run has it
MAY_BE_LOGARITHMIC = (MISMATCH, NOISE)
DECADE = 10.0  # a logarithmic axis from this ratio of largest to smallest on
COLUMNS, WIDTH, ROW_HEIGHT = 2, 10.5, 3.0  # inches: the type stays legible when a page shows it 830 pixels wide
COLORS = ("#4269d0", "#e8833a", "#3ca951", "#a463f2", "#9c6b4e", "#6cc5b0", "#ff725c", "#97bbf5")
MARKERS = "osD^v"
Floats = NDArray[np.float64]


def draw(curves: Sequence[Curves], path: Path, title: str) -> None:
    """Write the figure as a PNG; an earlier one is replaced."""
    figure = build(curves, title)
    partial = path.with_name(f".{path.name}.partial")  # a full disk leaves the one that is there whole
    try:
        figure.savefig(partial, dpi=110, format="png")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def build(curves: Sequence[Curves], title: str) -> Figure:
    """The figure: a panel per metric, a colour per arm.

    An arm with one seed is a thin line with short ticks where the learning rate changed; one with several is the mean
    of the runs that still go on at that step, in a band from the smallest to the largest of them. A cross on the
    reward marks a collapse.

    Args:
        curves: the runs, at least one with a step; arms in the order in which they come.
        title: stands above the panels.
    """
    arms = by_arm(curves)
    colors = {arm: COLORS[i % len(COLORS)] for i, arm in enumerate(arms)}
    panels = [(key, heading) for key, heading in PANELS if key not in OPTIONAL or _recorded(curves, key)]
    validation = validation_keys(curves)
    num_rows = -(-(len(panels) + bool(validation)) // COLUMNS)
    figure = Figure(figsize=(WIDTH, ROW_HEIGHT * num_rows + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(num_rows, COLUMNS).flat)
    if validation:
        _validation_panel(axes.pop(1), arms, colors, validation)
    for (key, heading), axis in zip(panels, axes, strict=False):
        _panel(axis, arms, colors, key, heading)
    for unused in axes[len(panels) :]:
        unused.axis("off")
    _same_steps(figure, curves)
    _legend(figure, arms, colors, title)
    return figure


def _panel(axis: Axes, arms: dict[str, list[Curves]], colors: dict[str, str], key: str, heading: str) -> None:
    for arm, runs in arms.items():
        _lines(axis, runs, colors[arm], key)
        if len(runs) == 1:
            _ticks(axis, runs[0], colors[arm])
        if key == REWARD:
            _crosses(axis, runs, colors[arm])
    if key in MAY_BE_LOGARITHMIC and spans_a_decade([run.column(key) for runs in arms.values() for run in runs]):
        axis.set_yscale("log", nonpositive="mask")
    if key == LENGTH and _recorded([run for runs in arms.values() for run in runs], "scheduler/lr"):
        heading += " (dotted: learning rate, right axis)"
        _learning_rates(axis.twinx(), arms, colors)
    _frame(axis, heading)


def _lines(axis: Axes, runs: Sequence[Curves], color: str, key: str) -> None:
    steps, mean, low, high = band(runs, key)
    if len(runs) > 1:
        axis.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    axis.plot(steps, mean, color=color, linewidth=1.0 if len(runs) == 1 else 1.4)


def _validation_panel(axis: Axes, arms: dict[str, list[Curves]], colors: dict[str, str], keys: Sequence[str]) -> None:
    for arm, runs in arms.items():
        for i, key in enumerate(keys):
            steps, mean, low, high = band(runs, key)
            axis.plot(steps, mean, f"{MARKERS[i % len(MARKERS)]}-", color=colors[arm], markersize=4, linewidth=1.0)
            if len(runs) > 1:
                axis.fill_between(steps, low, high, color=colors[arm], alpha=0.2, linewidth=0)
    names = [validation_name(key) for key in keys]
    if len(keys) > 1:
        marks = [Line2D([], [], color="gray", marker=MARKERS[i % len(MARKERS)], markersize=4) for i in range(len(keys))]
        axis.legend(marks, names, fontsize=8)
    _frame(axis, "validation accuracy" + (f": {names[0]}" if len(keys) == 1 else ""))


def band(runs: Sequence[Curves], key: str) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Steps [N] at which any of the runs has the metric; its mean, smallest and largest value over those that do."""
    values: dict[int, list[float]] = {step: [] for run in runs for step in run.steps.tolist()}
    for run in runs:
        for step, value in zip(run.steps.tolist(), run.column(key).tolist(), strict=True):
            if not np.isnan(value):
                values[step].append(value)
    steps = sorted(step for step in values if values[step])
    mean, low, high = (np.array([reduce(values[step]) for step in steps]) for reduce in (np.mean, min, max))
    return np.array(steps, np.int64), mean, low, high


def spans_a_decade(columns: Sequence[Floats]) -> bool:
    """Whether the largest value is more than ten times the smallest one above zero."""
    values = np.concatenate(columns)
    positive = values[values > 0]
    return len(positive) > 0 and bool(positive.max() > DECADE * positive.min())


def _ticks(axis: Axes, run: Curves, color: str) -> None:
    for step, event in run.events():
        height = 0.12 if event == "surge" else 0.06
        axis.vlines(step, 0, height, colors=color, linewidth=1.2, transform=axis.get_xaxis_transform())


def _crosses(axis: Axes, runs: Sequence[Curves], color: str) -> None:
    for run in runs:
        verdict = run.verdict()
        if verdict is None:
            continue
        rewards = run.column(REWARD)[run.steps <= verdict.step]
        rewards = rewards[~np.isnan(rewards)]
        if len(rewards):
            axis.plot(verdict.step, rewards[-1], "x", color=color, markersize=9, markeredgewidth=2.2, zorder=5)


def _learning_rates(axis: Axes, arms: dict[str, list[Curves]], colors: dict[str, str]) -> None:
    for arm, runs in arms.items():
        for run in runs:
            rates = run.column("scheduler/lr")
            axis.plot(run.steps, rates, color=colors[arm], linestyle=":", linewidth=1.3, drawstyle="steps-post")
    axis.set_ylim(bottom=0)
    axis.tick_params(labelsize=8)
    axis.yaxis.get_offset_text().set_fontsize(8)


def _same_steps(figure: Figure, curves: Sequence[Curves]) -> None:
    """The same x axis in all panels, so that what happens at a step stands one below the other."""
    first, last = min(run.steps[0] for run in curves), max(run.steps[-1] for run in curves)
    margin = 0.03 * max(1, last - first)
    for axis in figure.axes:
        axis.set_xlim(first - margin, last + margin)


def _frame(axis: Axes, heading: str) -> None:
    axis.set_title(heading, fontsize=10)
    axis.set_xlabel("step", fontsize=9)
    axis.tick_params(which="both", labelsize=8)
    axis.grid(alpha=0.2)


def _legend(figure: Figure, arms: dict[str, list[Curves]], colors: dict[str, str], title: str) -> None:
    """Title and arms above, and below a caption with what the marks mean that this figure has."""
    labels = [arm if len(runs) == 1 else f"{arm} ({len(runs)} seeds)" for arm, runs in arms.items()]
    lines = [Line2D([], [], color=colors[arm], linewidth=2) for arm in arms]
    style = {"ncols": min(len(arms), 5), "fontsize": 9, "title_fontsize": 13, "frameon": False}
    figure.legend(lines, labels, loc="outside upper center", title=title, **style)
    runs = [run for several in arms.values() for run in several]
    caption = [
        "band: smallest to largest seed, line: mean, both of the runs still going on" if len(runs) > len(arms) else "",
        "ticks at the bottom: events of the learning rate, the surge taller"
        if any(len(several) == 1 and several[0].events() for several in arms.values())
        else "",
        "cross: collapse" if any(run.verdict() for run in runs) else "",
    ]
    figure.supxlabel("; ".join(filter(None, caption)), fontsize=8, color="gray")


def _recorded(runs: Sequence[Curves], key: str) -> bool:
    return any(key in row for run in runs for row in run.rows)
