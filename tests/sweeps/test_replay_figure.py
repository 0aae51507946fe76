"""The picture of a replay: its panels, their curves, and a file in the format of its name."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from actors.lr_policies import ConstantConfig, LengthTriggeredConfig, SchedulerConfig, SignalTriggeredConfig
from orchestrator.config_errors import ConfigError
from orchestrator.traces import Trace
from sweeps.replay import Replay, replay
from sweeps.replay_figure import check_format, draw, picture

LENGTH = "response/length_mean"
PNG = b"\x89PNG\r\n\x1a\n"
METHOD = LengthTriggeredConfig(lr=1e-6, baseline_steps=4, smoothing=0.5, patience=3, min_lr_ratio=0.25)


def replayed(config: SchedulerConfig, num_steps: int = 60, name: str = LENGTH) -> Replay:
    values = np.where(np.arange(num_steps) < 8, 10.0, 30.0)
    values[::7] = np.nan
    columns = {name: values} if config.build(num_steps).signals else {}
    trace = Trace(source="$run_1$.csv", steps=np.arange(num_steps, dtype=np.int64), columns=columns)
    return replay(config, trace, "p.yaml", watch=True)


def curve(panel: Axes, label: str) -> np.ndarray:
    """[N] y values of the one line with this label."""
    (line,) = [line for line in panel.lines if line.get_label() == label]
    return np.asarray(line.get_ydata(), np.float64)


def labels(panel: Axes) -> list[str]:
    legend = panel.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def marked(panel: Axes) -> list[list[float]]:
    """The steps of each collection of vertical lines."""
    collections = [collection for collection in panel.collections if isinstance(collection, LineCollection)]
    return [[float(np.asarray(segment)[0][0]) for segment in collection.get_segments()] for collection in collections]


def test_a_detecting_policy_has_three_panels_over_one_step_axis() -> None:
    run = replayed(METHOD)
    signal, counter, rate = picture(run).axes
    assert run.watch is not None
    assert labels(signal) == ["as recorded", "smoothed (EMA)", "level", "baseline"]
    np.testing.assert_array_equal(curve(signal, "as recorded"), run.trace.columns[LENGTH])
    np.testing.assert_array_equal(curve(signal, "smoothed (EMA)"), run.watch.ema)
    np.testing.assert_array_equal(curve(signal, "level"), run.watch.level)
    assert np.nanmax(curve(signal, "level")) == 2 * np.nanmax(curve(signal, "baseline")) == 20.0
    np.testing.assert_array_equal(curve(counter, "counter"), run.watch.count)
    assert np.nanmax(run.watch.count) == curve(counter, "patience")[0] == 3
    np.testing.assert_array_equal(curve(rate, "learning rate"), [decision.lr for decision in run.decisions])
    assert labels(rate) == ["learning rate", "surge", "decay", "floor"]
    assert (signal.get_ylabel(), rate.get_ylabel(), rate.get_xlabel()) == (LENGTH, "learning rate", "step")
    assert signal.get_xlim() == counter.get_xlim() == rate.get_xlim()


def test_the_events_stand_in_every_panel_at_their_steps() -> None:
    run = replayed(METHOD)
    by_event = [
        [float(decision.step) for decision in run.decisions if event in decision.events]
        for event in ("surge", "decay", "floor")
    ]
    assert [len(steps) for steps in by_event] == [1, 2, 1]
    assert [marked(panel) for panel in picture(run).axes] == [by_event] * 3


def test_a_threshold_is_the_level_and_has_no_baseline() -> None:
    config = SignalTriggeredConfig(signal="gradient/norm", threshold=20.0)
    signal, *_ = picture(replayed(config, name="gradient/norm")).axes
    assert labels(signal) == ["as recorded", "smoothed (EMA)", "level"]
    assert set(curve(signal, "level")) == {20.0}


@pytest.mark.parametrize("config", [ConstantConfig(), LengthTriggeredConfig(surge_step=20)])
def test_a_policy_that_reads_no_signal_has_only_the_panel_of_the_rate(config: SchedulerConfig) -> None:
    (rate,) = picture(replayed(config)).axes
    assert (labels(rate)[0], rate.get_xlabel()) == ("learning rate", "step")


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (replayed(METHOD), "p.png"),
        (replayed(METHOD, num_steps=2), "p.png"),
        (replayed(ConstantConfig(), num_steps=1), "p.png"),
        (replayed(SignalTriggeredConfig(signal="$a_b^c$"), name="$a_b^c$"), "p.PNG"),
    ],
    ids=["all", "two steps", "one step, no signal", "signs that mathematics uses"],
)
def test_a_png_is_written_without_a_warning(run: Replay, name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(run, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(PNG)
    assert (tmp_path / name).stat().st_size > 8_000


def test_the_suffix_chooses_the_format(tmp_path: Path) -> None:
    draw(replayed(METHOD), tmp_path / "p.svg")
    assert "<svg" in (tmp_path / "p.svg").read_text()


@pytest.mark.parametrize("name", ["p.bmp2", "p", "p.", ".png2"])
def test_a_suffix_that_matplotlib_does_not_write_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--plot: got '.*', expected a file name that ends in one of: .*\.png"):
        check_format(Path(name))
    check_format(Path("p.PDF"))
