"""The figure of a comparison: reward, mismatch, gradient norm, and response length with the learning rate."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sweeps.summary import Curves

PANELS = (
    ("reward", "reward/mean"),
    ("mismatch: |log-ppl difference|", "mismatch/log_ppl_abs_diff"),
    ("gradient norm", "gradient/norm"),
    ("response length in tokens (dotted: learning rate, right axis)", "response/length_mean"),
)
COLORS = ("#4269d0", "#e8833a", "#3ca951", "#9c6b4e", "#a463f2", "#6cc5b0", "#ff725c", "#97bbf5")
SMOOTHING = 0.3


def draw(curves: Sequence[Curves], path: Path, title: str) -> None:
    """Write a PNG with four panels; thin lines as measured, bold ones smoothed (EMA 0.3), a colour per arm."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = figure.subplots(2, 2).flat
    colors = {arm: COLORS[i % len(COLORS)] for i, arm in enumerate(dict.fromkeys(curve.arm for curve in curves))}
    for axis, (heading, key) in zip(axes, PANELS, strict=True):
        _panel(axis, curves, colors, heading, key)
        if key == "response/length_mean":
            _learning_rate(axis.twinx(), curves, colors)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _panel(axis: Axes, curves: Sequence[Curves], colors: dict[str, str], heading: str, key: str) -> None:
    labelled: set[str] = set()
    for curve in curves:
        values = curve.column(key)
        label = curve.arm if curve.arm not in labelled else None
        labelled.add(curve.arm)
        axis.plot(curve.steps, values, color=colors[curve.arm], linewidth=0.6, alpha=0.35)
        axis.plot(curve.steps, _smoothed(values), color=colors[curve.arm], linewidth=1.8, label=label)
        for step, event in curve.events():
            axis.axvline(step, color=colors[curve.arm], linewidth=0.8, linestyle="--" if event == "surge" else ":")
    axis.set_title(heading, fontsize=10)
    axis.set_xlabel("step")
    axis.grid(alpha=0.2)
    axis.legend(fontsize=9)


def _learning_rate(axis: Axes, curves: Sequence[Curves], colors: dict[str, str]) -> None:
    for curve in curves:
        rates = curve.column("scheduler/lr")
        axis.plot(curve.steps, rates, color=colors[curve.arm], linestyle=":", linewidth=1.5, drawstyle="steps-post")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("learning rate")


def _smoothed(values: np.ndarray) -> np.ndarray:
    smoothed = np.full_like(values, np.nan)
    level = np.nan
    for i, value in enumerate(values):
        if not np.isnan(value):
            level = value if np.isnan(level) else SMOOTHING * value + (1 - SMOOTHING) * level
        smoothed[i] = level
    return smoothed
