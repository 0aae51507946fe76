"""The panel of response lengths, with the learning rate and what happened to it below."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from sweeps.curves import Curves
from sweeps.figure import LENGTH
from sweeps.html_report.arm_lines import arm_lines
from sweeps.html_report.panels import ArmStyle, Panel, axis, element_name, framed, small
from sweeps.html_report.thinning import Line

RATE = "scheduler/lr"
EVENTS = {"surge": "star", "decay": "triangle-down", "floor": "square"}
OTHER_EVENT = "circle"
LENGTH_DOMAIN, RATE_DOMAIN = (0.44, 1.0), (0.0, 0.32)  # shares of the height


def length_panel(
    heading: str, arms: Mapping[str, Sequence[Curves]], styles: Mapping[str, ArmStyle], rates: bool
) -> Panel:
    """Lengths above, below them the learning rate with its events, over the same steps."""
    traces = [trace for arm, runs in arms.items() for trace in arm_lines(runs, LENGTH, styles[arm])]
    if not rates:
        figure = framed(traces, xaxis=axis("step"), yaxis=axis(""))
        return Panel(name=element_name(LENGTH), heading=heading, note="", figure=figure)
    for arm, runs in arms.items():
        traces += [*_rates(runs, styles[arm]), *_events(runs, styles[arm])]
    figure = framed(
        traces,
        xaxis=axis("step", anchor="y2"),
        yaxis=axis("", domain=LENGTH_DOMAIN),
        yaxis2=axis("lr", domain=RATE_DOMAIN, rangemode="tozero", exponentformat="e", nticks=4),
    )
    marks = "events of the learning rate: surge a star, decay a triangle, floor a square, others a circle"
    happened = any(run.events() for runs in arms.values() for run in runs)
    return Panel(
        name=element_name(LENGTH),
        heading=f"{heading}; below, the learning rate of each seed",
        note=marks if happened else "",
        figure=figure,
    )


def _rates(runs: Sequence[Curves], style: ArmStyle) -> list[go.Scatter]:
    """The learning rate of each seed; of seeds for which it is the same, once."""
    by_course: dict[bytes, list[Curves]] = {}
    for run in runs:
        by_course.setdefault(run.steps.tobytes() + run.column(RATE).tobytes(), []).append(run)
    traces = []
    for same in by_course.values():
        line = Line.bare(same[0].steps, same[0].column(RATE)).thinned()
        seeds = ", ".join(str(run.seed) for run in same)
        template = f"%{{fullData.name}}, seed {seeds}: lr %{{y:.3g}}, step %{{x}}<extra></extra>"
        look = {"color": style.color, "width": 1.3, "dash": style.dash, "shape": "hv"}
        x, y = small(line.steps), small(line.values)
        traces.append(style.trace("mean", x=x, y=y, mode="lines", line=look, yaxis="y2", hovertemplate=template))
    return traces


def _events(runs: Sequence[Curves], style: ArmStyle) -> list[go.Scatter]:
    found = [
        (step, run.rows[int(np.searchsorted(run.steps, step))].get(RATE), event, run.seed)
        for run in runs
        for step, event in run.events()
    ]
    found = [each for each in found if each[1] is not None]
    if not found:
        return []
    steps, rates, events, seeds = zip(*found, strict=True)
    return [
        style.trace(
            "mean",
            x=steps,
            y=rates,
            mode="markers",
            yaxis="y2",
            marker={"color": style.color, "size": 8, "symbol": [EVENTS.get(event, OTHER_EVENT) for event in events]},
            text=[f"{escape(event)}, seed {seed}" for event, seed in zip(events, seeds, strict=True)],
            hovertemplate="%{fullData.name}: %{text}, step %{x}, lr %{y:.3g}<extra></extra>",
        )
    ]
