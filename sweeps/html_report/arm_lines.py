"""An arm in a panel: the band over its seeds, their mean, and each of them."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from sweeps.curves import Curves
from sweeps.figure import band
from sweeps.html_report.panels import ArmStyle, small
from sweeps.html_report.thinning import Line

MOST_MARKS = 60  # of a line


def arm_lines(
    runs: Sequence[Curves], key: str, style: ArmStyle, smallest: float | None = None, marks: bool = False
) -> list[go.Scatter]:
    """The band, the mean, and each seed, which the page shows when it is asked to.

    Args:
        runs: of one arm.
        key: of the metric.
        style: of the arm.
        smallest: value that the axis can show; None when it can show all.
        marks: whether to mark the points of the mean, when they are few.
    """
    steps, mean, low, high = band(runs, key)
    if len(steps) == 0:
        return []
    line = Line(steps=steps, values=mean, low=low, high=high).thinned()
    floor = line.low if smallest is None else np.maximum(line.low, smallest)
    several = len(runs) > 1
    mean_trace = style.trace(
        "mean",
        x=small(line.steps),
        y=small(line.values),
        line={"color": style.color, "width": 1.4 if several else 1.1, "dash": style.dash},
        customdata=small(np.stack([line.low, line.high], axis=1)) if several else None,
        hovertemplate="%{fullData.name}: %{y:.4g}"
        + (" (%{customdata[0]:.4g} to %{customdata[1]:.4g})" if several else "")
        + ", step %{x}<extra></extra>",
        mode="lines+markers" if marks and len(line.steps) <= MOST_MARKS else "lines",
        marker={"size": 5},
    )
    if not several:
        return [mean_trace]
    area = style.trace(
        "band",
        x=small(np.concatenate([line.steps, line.steps[::-1]])),
        y=small(np.concatenate([line.high, floor[::-1]])),
        fill="toself",
        fillcolor=style.transparent(0.18),
        line={"width": 0, "color": style.color},
        mode="lines",
        hoverinfo="skip",
    )
    return [area, mean_trace, *(_seed(run, key, style) for run in runs)]


def _seed(run: Curves, key: str, style: ArmStyle) -> go.Scatter:
    line = Line.bare(run.steps, run.column(key)).thinned()
    return style.trace(
        "seed",
        x=small(line.steps),
        y=small(line.values),
        mode="lines",
        line={"color": style.transparent(0.6), "width": 0.8, "dash": style.dash},
        hovertemplate=f"%{{fullData.name}}, seed {run.seed}: %{{y:.4g}}, step %{{x}}<extra></extra>",
        visible=False,
    )
