"""The picture of a replay: the signal and what the detector makes of it, its counter, and the learning rate."""

from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from actors.lr_policies import LengthTriggeredConfig, SignalTriggeredConfig
from actors.lr_policies.detector import DetectorConfig
from orchestrator.config_errors import ConfigError
from sweeps.replay import Replay, Watch

SIGNAL, EMA, LEVEL, BASELINE = "#97bbf5", "#4269d0", "#ff725c", "#9c6b4e"
EVENTS: dict[str, tuple[str, Literal["dashed", "dotted", "dashdot"]]] = {
    "surge": ("#ff725c", "dashed"),
    "decay": ("#a463f2", "dotted"),
    "floor": ("#3ca951", "dashdot"),
}
WIDTH, PANEL_HEIGHT = 10.0, 2.6  # inches


def check_format(path: Path) -> None:
    """ConfigError unless matplotlib writes files with this suffix."""
    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in known:
        raise ConfigError("--plot", "", str(path), f"a file name that ends in one of: .{', .'.join(sorted(known))}")


def picture(replayed: Replay) -> Figure:
    """Panels over one step axis: signal, counter and learning rate; the last alone when the policy reads no signal."""
    num_panels = 1 if replayed.watch is None else 3
    figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * num_panels + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{replayed.config.kind} on {replayed.trace.source}", parse_math=False)
    panels = list(figure.subplots(num_panels, 1, sharex=True, squeeze=False).flat)
    if replayed.watch is not None:
        _signal_panel(panels[0], replayed, replayed.watch)
        _counter_panel(panels[1], replayed, replayed.watch)
    _rate_panel(panels[-1], replayed)
    for panel in panels:
        _mark_events(panel, replayed, labelled=panel is panels[-1])
        panel.grid(alpha=0.2)
        panel.legend(fontsize=8, loc="upper right" if panel is panels[-1] else "upper left")
    panels[-1].set_xlabel("step")
    return figure


def draw(replayed: Replay, path: Path) -> None:
    """Write the picture in the format that the suffix of `path` names."""
    picture(replayed).savefig(path, dpi=110)


def _signal_panel(panel: Axes, replayed: Replay, watch: Watch) -> None:
    ((name, values),) = replayed.trace.columns.items()
    steps = replayed.trace.steps
    panel.plot(steps, values, color=SIGNAL, linewidth=0.7, label="as recorded")
    panel.plot(steps, watch.ema, color=EMA, linewidth=1.6, label="smoothed (EMA)")
    panel.plot(steps, watch.level, color=LEVEL, linewidth=1.2, linestyle="--", label="level")
    config = replayed.config
    if isinstance(config, LengthTriggeredConfig) or (
        isinstance(config, SignalTriggeredConfig) and config.threshold is None
    ):
        panel.plot(steps, watch.level / config.ratio, color=BASELINE, linewidth=1.0, linestyle=":", label="baseline")
    panel.set_ylabel(name, parse_math=False)


def _counter_panel(panel: Axes, replayed: Replay, watch: Watch) -> None:
    panel.plot(replayed.trace.steps, watch.count, color=EMA, linewidth=1.0, drawstyle="steps-mid", label="counter")
    if isinstance(replayed.config, DetectorConfig):
        panel.axhline(replayed.config.patience, color=LEVEL, linewidth=1.2, linestyle="--", label="patience")
    panel.set_ylabel("steps above the level")
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylim(bottom=0)


def _rate_panel(panel: Axes, replayed: Replay) -> None:
    rates = [decision.lr for decision in replayed.decisions]
    panel.plot(replayed.trace.steps, rates, color=EMA, linewidth=1.6, drawstyle="steps-post", label="learning rate")
    panel.set_ylabel("learning rate")
    panel.set_ylim(bottom=0)


def _mark_events(panel: Axes, replayed: Replay, labelled: bool) -> None:
    """A vertical line per event; one collection each kind, as there may be thousands."""
    for event, (color, style) in EVENTS.items():
        steps = [decision.step for decision in replayed.decisions if event in decision.events]
        if steps:
            across = panel.get_xaxis_transform()
            label = event if labelled else "_nolegend_"
            panel.vlines(steps, 0, 1, colors=color, linestyles=style, linewidth=1.0, label=label, transform=across)
