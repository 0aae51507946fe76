"""The curves of the page: a panel per metric, each arm the mean of its seeds in a band."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from sweeps.curves import Curves
from sweeps.figure import LENGTH, MAY_BE_LOGARITHMIC, PANELS, REWARD, spans_a_decade
from sweeps.html_report.arm_lines import arm_lines
from sweeps.html_report.length_panel import RATE, length_panel
from sweeps.html_report.panels import ArmStyle, Panel, axis, element_name, framed
from sweeps.html_report.thinning import MOST_POINTS
from sweeps.measures import validation_keys, validation_name
from sweeps.summary import by_arm

NORM = "gradient/norm_smoothed"
LOGARITHMIC = (*MAY_BE_LOGARITHMIC, NORM)
Arms = Mapping[str, Sequence[Curves]]
Styles = Mapping[str, ArmStyle]


def drawn_keys(runs: Sequence[Curves]) -> list[str]:
    """The metrics that the panels show, as far as any of the runs has recorded them."""
    recorded = {key for run in runs for row in run.rows for key in row}
    known = [REWARD, *validation_keys(runs), *(key for key, _ in PANELS if key != REWARD), RATE]
    return [key for key in known if key in recorded]


def curve_panels(runs: Sequence[Curves]) -> list[Panel]:
    """A panel for everything that the runs have recorded of reward, validation, mismatch, gradients and lengths.

    Args:
        runs: the arms in the order in which they get their colours.
    """
    arms = by_arm(runs)
    styles = arm_styles(list(arms))
    keys = drawn_keys(runs)
    headings = {**dict(PANELS), LENGTH: "response length in tokens"}
    panels = [
        _panel(key, headings[key], arms, styles)
        if key != LENGTH
        else length_panel(headings[key], arms, styles, RATE in keys)
        for key in headings
        if key in keys
    ]
    validation = [_validation_panel(key, arms, styles) for key in validation_keys(runs)]
    return [*panels[:1], *validation, *panels[1:]] if REWARD in keys else [*validation, *panels]


def arm_styles(arms: Sequence[str]) -> dict[str, ArmStyle]:
    """How each arm looks, in their order."""
    return {arm: ArmStyle.of(arm, number) for number, arm in enumerate(arms)}


def is_thinned(runs: Sequence[Curves]) -> bool:
    """Whether a line of these runs has more points than the page draws."""
    return any(len(run.steps) > MOST_POINTS for run in runs)


def _panel(key: str, heading: str, arms: Arms, styles: Styles) -> Panel:
    columns = [run.column(key) for runs in arms.values() for run in runs]
    logarithmic = key in LOGARITHMIC and spans_a_decade(columns)
    smallest = _smallest_positive(columns) if logarithmic else None
    traces = [trace for arm, runs in arms.items() for trace in arm_lines(runs, key, styles[arm], smallest)]
    crosses = [cross for arm, runs in arms.items() for cross in _crosses(runs, styles[arm])] if key == REWARD else []
    figure = framed([*traces, *crosses], xaxis=axis("step"), yaxis=axis("", logarithmic))
    return Panel(name=element_name(key), heading=heading, note="cross: collapse" if crosses else "", figure=figure)


def _validation_panel(key: str, arms: Arms, styles: Styles) -> Panel:
    traces = [trace for arm, runs in arms.items() for trace in arm_lines(runs, key, styles[arm], marks=True)]
    figure = framed(traces, xaxis=axis("step"), yaxis=axis(""))
    return Panel(name=element_name(key), heading=f"validation: {validation_name(key)}", note="", figure=figure)


def _crosses(runs: Sequence[Curves], style: ArmStyle) -> list[go.Scatter]:
    found = []
    for run in runs:
        if verdict := run.verdict():
            rewards = run.column(REWARD)[run.steps <= verdict.step]
            present = rewards[~np.isnan(rewards)]
            if len(present):
                text = f"seed {run.seed} collapsed: {escape(verdict.reason)}"
                found.append((verdict.step, float(present[-1]), text))
    if not found:
        return []
    steps, heights, texts = zip(*found, strict=True)
    marker = {"symbol": "x-thin", "size": 10, "line": {"width": 2.5, "color": style.color}}
    template = "%{fullData.name}: %{text}, step %{x}<extra></extra>"
    return [style.trace("mean", x=steps, y=heights, text=texts, mode="markers", marker=marker, hovertemplate=template)]


def _smallest_positive(columns: Sequence[NDArray[np.float64]]) -> float:
    values = np.concatenate(columns)
    return float(values[values > 0].min())
