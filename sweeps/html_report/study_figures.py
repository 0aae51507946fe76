"""The figures of a study: importance of its parameters, slices through its objective, the stability frontier."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from sweeps.figure import spans_a_decade
from sweeps.html_report.frontier import Frontier, Point
from sweeps.html_report.importance import Importance, SpaceEntry
from sweeps.html_report.panels import Panel, axis, element_name, framed
from sweeps.html_report.tables import short, shown
from sweeps.report_runs import REFERENCE
from sweeps.study.record import StudyRecord, TrialRecord

FILL, RING, REST = "#4269d0", "#e8833a", "#8a8f98"  # trials, the chosen among them, what stands for comparison
REACHED_DOMAIN, MISMATCH_DOMAIN = (0.56, 1.0), (0.0, 0.44)  # shares of the height
MARKS = "filled: keeps all constraints; ringed: on the frontier"


def importance_panel(found: Importance) -> Panel:
    """A bar per parameter, the most important one on top."""
    names = list(found.shares)[::-1]
    shares = [found.shares[name] for name in names]
    bars = go.Bar(
        x=shares,
        y=[escape(short(name)) for name in names],
        orientation="h",
        marker={"color": FILL},
        text=[f"{share:.0%}" for share in shares],
        textposition="auto",
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    left_out = "; left out, as only some trials have them: " + ", ".join(found.left_out) if found.left_out else ""
    return Panel(
        name="importance",
        heading="importance for the objective",
        note=f"share of the variance over {found.num_trials} complete trials (fANOVA){left_out}",
        figure=framed([bars], xaxis=axis("", tickformat=".0%", range=[0, 1]), yaxis=axis("")),
    )


def slice_panels(study: StudyRecord, space: Mapping[str, SpaceEntry]) -> list[Panel]:
    """A panel per parameter: the objective of every complete trial over what the parameter was."""
    panels = []
    for path, entry in space.items():
        trials = [trial for trial in study.trials if trial.state == "complete" and path in trial.params]
        if trials:
            x, x_axis = _over(path, entry, trials)
            dots = _dots(trials, x, [trial.value for trial in trials], {})
            figure = framed([dots], xaxis=x_axis, yaxis=axis(""))
            heading = f"objective over {short(path)}"
            panels.append(Panel(name=f"slice-{element_name(path)}", heading=heading, note="", figure=figure))
    return panels


def frontier_panels(study: StudyRecord, space: Mapping[str, SpaceEntry], found: Frontier) -> list[Panel]:
    """Reached over mismatch, and both over every parameter."""
    trials = [trial for trial in study.trials if trial.arm in found.points]
    if not trials:
        return []
    panels = [_frontier_panel(trials, found)]
    for path, entry in space.items():
        if having := [trial for trial in trials if path in trial.params]:
            panels.append(_threshold_panel(path, entry, having, found))
    return panels


def _frontier_panel(trials: Sequence[TrialRecord], found: Frontier) -> Panel:
    chosen = sorted((point for point in found.points.values() if point.is_best), key=lambda point: point.mismatch)
    points = [found.points[trial.arm] for trial in trials]
    traces = [
        go.Scatter(
            x=[point.mismatch for point in chosen],
            y=[point.reached for point in chosen],
            mode="lines",
            line={"color": RING, "width": 1, "dash": "dot"},
            hoverinfo="skip",
        ),
        _dots(trials, [point.mismatch for point in points], [point.reached for point in points], found.points),
    ]
    if baseline := found.points.get(REFERENCE):
        traces.append(_baseline(baseline))
    return Panel(
        name="frontier",
        heading="stability frontier: what is reached at which mismatch",
        note=f"{MARKS}: no other arm reaches more at less mismatch; diamond: baseline",
        figure=framed(traces, xaxis=_mismatch_axis(found), yaxis=axis(found.reached)),
    )


def _threshold_panel(path: str, entry: SpaceEntry, trials: Sequence[TrialRecord], found: Frontier) -> Panel:
    """What is reached above, the mismatch below, over the same parameter."""
    x, x_axis = _over(path, entry, trials)
    points = [found.points[trial.arm] for trial in trials]
    above = _dots(trials, x, [point.reached for point in points], found.points)
    below = _dots(trials, x, [point.mismatch for point in points], found.points).update(yaxis="y2")
    figure = framed(
        [above, below],
        xaxis={**x_axis, "anchor": "y2"},
        yaxis=axis(found.reached, domain=REACHED_DOMAIN),
        yaxis2=_mismatch_axis(found, domain=MISMATCH_DOMAIN),
    )
    if baseline := found.points.get(REFERENCE):
        line = {"color": REST, "width": 1, "dash": "dash"}
        figure.add_hline(y=baseline.reached, line=line, yref="y")
        figure.add_hline(y=baseline.mismatch, line=line, yref="y2")
    note = MARKS + ("; dashed: baseline" if REFERENCE in found.points else "")
    return Panel(name=f"threshold-{element_name(path)}", heading=f"over {short(path)}", note=note, figure=figure)


def _mismatch_axis(found: Frontier, **settings: Any) -> dict[str, Any]:
    mismatches = np.array([point.mismatch for point in found.points.values()])
    return axis("mismatch, last", bool(mismatches.min() > 0) and spans_a_decade([mismatches]), **settings)


def _over(path: str, entry: SpaceEntry, trials: Sequence[TrialRecord]) -> tuple[list[Any], dict[str, Any]]:
    """What a parameter was in each trial, and the axis for it."""
    values = [trial.params[path] for trial in trials]
    if entry.kind == "categorical":
        return [escape(shown(value)) for value in values], axis(short(path), type="category")
    return list(values), axis(short(path), entry.log and all(value > 0 for value in values))  # type: ignore[operator]


def _dots(trials: Sequence[TrialRecord], x: Sequence[Any], y: Sequence[Any], points: Mapping[str, Point]) -> go.Scatter:
    best = [trial.arm in points and points[trial.arm].is_best for trial in trials]
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        marker={
            "size": 9,
            "symbol": ["circle" if trial.feasible else "circle-open" for trial in trials],
            "color": [
                FILL if trial.feasible or not chosen else RING for trial, chosen in zip(trials, best, strict=True)
            ],
            "line": {
                "width": [2.5 if chosen else 1.0 for chosen in best],
                "color": [RING if c else FILL for c in best],
            },
        },
        text=[_told(trial) for trial in trials],
        hovertemplate="%{text}<br>%{y:.4g}<extra></extra>",
    )


def _baseline(point: Point) -> go.Scatter:
    ring = {"width": 2.5 if point.is_best else 0, "color": RING}
    return go.Scatter(
        x=[point.mismatch],
        y=[point.reached],
        mode="markers",
        marker={"size": 11, "symbol": "diamond", "color": REST, "line": ring},
        hovertemplate="baseline<br>%{y:.4g}<extra></extra>",
    )


def _told(trial: TrialRecord) -> str:
    """The trial and its parameters, for the pointer."""
    params = [f"{short(path)} {shown(value)}" for path, value in trial.params.items()]
    kept = "" if trial.feasible else " (breaks a constraint)"
    return "<br>".join(escape(line) for line in [f"trial {trial.number}{kept}", *params])
