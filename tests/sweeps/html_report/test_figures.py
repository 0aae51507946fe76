"""The curves: which panels there are, and what an arm with one seed or several looks like in them."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from sweeps.curves import Curves
from sweeps.html_report.figures import curve_panels, drawn_keys, is_thinned
from sweeps.html_report.panels import ArmStyle, Panel, small


def panel(panels: list[Panel], name: str) -> Panel:
    return next(found for found in panels if found.name == name)


def roles(figure: go.Figure) -> list[str]:
    return [f"{trace.meta['arm']} {trace.meta['role']}" for trace in figure.data]


def test_there_is_a_panel_for_everything_that_was_recorded(make_run: Any) -> None:
    assert [found.name for found in curve_panels([make_run("a")])] == [
        "reward-mean",
        "eval-held-out-avg-4",
        "mismatch-log-ppl-abs-diff",
        "gradient-norm-smoothed",
        "gradient-noise-scale",
        "response-length-mean",
    ]
    bare = Curves(arm="a", seed=0, steps=np.arange(1), rows=({"step": 0, "eval/x/avg@1": 0.5},))
    assert [found.name for found in curve_panels([bare])] == ["eval-x-avg-1"]
    assert drawn_keys([bare]) == ["eval/x/avg@1"]
    assert curve_panels([Curves(arm="a", seed=0, steps=np.arange(1), rows=({"step": 0},))]) == []


def test_one_seed_is_a_line_and_several_are_a_mean_in_a_band_with_hidden_seeds(make_run: Any) -> None:
    runs = [make_run("one"), make_run("two", 0), make_run("two", 1)]
    figure = panel(curve_panels(runs), "reward-mean").figure
    assert roles(figure) == ["one mean", "two band", "two mean", "two seed", "two seed"]
    assert [trace.visible for trace in figure.data] == [None, None, None, False, False]
    mean = figure.data[2]
    assert mean.y == pytest.approx([0.1005 + 0.01 * step for step in range(8)], rel=1e-6)
    assert mean.customdata[0] == pytest.approx([0.1, 0.101], rel=1e-6)


def test_an_axis_is_logarithmic_where_the_values_ask_for_it(make_run: Any) -> None:
    wide = panel(curve_panels([make_run("a", steps=20)]), "mismatch-log-ppl-abs-diff").figure
    narrow = panel(curve_panels([make_run("a", steps=4)]), "mismatch-log-ppl-abs-diff").figure
    assert (wide.layout.yaxis.type, narrow.layout.yaxis.type) == ("log", None)


def test_a_band_on_a_logarithmic_axis_ends_at_the_smallest_value_above_zero() -> None:
    key = "mismatch/log_ppl_abs_diff"
    runs = [
        Curves(arm="a", seed=seed, steps=np.arange(2), rows=({"step": 0, key: value}, {"step": 1, key: 1.0}))
        for seed, value in enumerate((0.0, 0.01))
    ]
    band = curve_panels(runs)[0].figure.data[0]
    assert min(band.y) == pytest.approx(0.01)


def test_the_rate_of_seeds_that_share_it_is_drawn_once_with_its_events(make_run: Any) -> None:
    figure = panel(curve_panels([make_run("a", 0), make_run("a", 1)]), "response-length-mean").figure
    rate, events = (trace for trace in figure.data if trace.yaxis == "y2")
    assert "seed 0, 1" in rate.hovertemplate
    assert rate.y == pytest.approx([1e-5] * 4 + [5e-6] * 4)
    assert (events.x, events.y) == ((4, 4), (5e-6, 5e-6))
    assert list(events.text) == ["decay, seed 0", "decay, seed 1"]


def test_a_collapse_is_a_cross_on_the_reward() -> None:
    rows = tuple({"step": step, "reward/mean": step / 10, "gradient/nonfinite": 1.0} for step in range(12))
    found = panel(curve_panels([Curves(arm="a", seed=3, steps=np.arange(12), rows=rows)]), "reward-mean")
    cross = found.figure.data[-1]
    assert (cross.x, cross.y) == ((9,), (0.9,))
    assert cross.text == ("seed 3 collapsed: nonfinite_gradient",)
    assert found.note == "cross: collapse"


def test_long_lines_are_thinned(make_run: Any) -> None:
    runs = [make_run("a", steps=3000)]
    assert is_thinned(runs) and not is_thinned([make_run("a")])
    assert max(len(trace.x) for found in curve_panels(runs) for trace in found.figure.data) <= 1000


def test_more_arms_than_colours_differ_in_their_dashes() -> None:
    looks = {(style.color, style.dash) for style in (ArmStyle.of("a", number) for number in range(32))}
    assert len(looks) == 32
    assert ArmStyle.of("a", 0).transparent(0.5) == "rgba(66,105,208,0.5)"


def test_names_are_escaped_for_the_script_that_draws_them(make_run: Any) -> None:
    figure = curve_panels([make_run("<b>&")])[0].figure
    assert figure.data[0].name == "&lt;b&gt;&amp;"


def test_steps_beyond_four_bytes_stay_whole() -> None:
    assert small(np.array([0, 2**40])).tolist() == [0.0, float(2**40)]
    assert small(np.array([0, 5])).dtype == np.int32
