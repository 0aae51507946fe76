"""What all figures of the page have in common: colours, types that stay small, the frame."""

import re
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from sweeps.figure import COLORS

DASHES = ("solid", "dash", "dot", "dashdot")  # one more for every time the colours are used up
SMALLEST, LARGEST = np.iinfo(np.int32).min, np.iinfo(np.int32).max
TALL = ("response-length-mean", "threshold-", "frontier")  # panels that need more height than others
Role = Literal["mean", "band", "seed"]  # seeds are drawn when the reader asks for them


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A figure of the page under its heading.

    Example:
        Panel(name="reward", heading="reward", note="cross: collapse", figure=go.Figure())
    """

    name: str  # of its element; letters, digits and dashes
    heading: str
    note: str  # one line below the figure; may be empty
    figure: go.Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmStyle:
    """How an arm looks in all figures.

    Example:
        ArmStyle(arm="decay", color="#e8833a", dash="solid")
    """

    arm: str
    color: str  # as #rrggbb
    dash: str

    @classmethod
    def of(cls, arm: str, number: int) -> "ArmStyle":
        """Of the arm that comes as the `number`-th, from 0."""
        dash = DASHES[number // len(COLORS) % len(DASHES)]
        return cls(arm=arm, color=COLORS[number % len(COLORS)], dash=dash)

    def transparent(self, alpha: float) -> str:
        """Its colour as `rgba(...)`."""
        red, green, blue = (int(self.color[at : at + 2], 16) for at in (1, 3, 5))
        return f"rgba({red},{green},{blue},{alpha})"

    def trace(self, role: Role, **settings: Any) -> go.Scatter:
        """A trace of this arm that the page can switch on and off with all others of it."""
        meta = {"arm": self.arm, "role": role}
        return go.Scatter(name=escape(self.arm), legendgroup=escape(self.arm), meta=meta, showlegend=False, **settings)


def small(values: NDArray[Any]) -> NDArray[Any]:
    """[N] the same in 4 bytes each, as far as the page needs them: whole numbers, or 7 digits."""
    if np.issubdtype(values.dtype, np.integer):
        fits = len(values) == 0 or (values.min() >= SMALLEST and values.max() <= LARGEST)
        return values.astype(np.int32 if fits else np.float64)
    return values.astype(np.float32)


def framed(traces: list[go.Scatter | go.Bar], **layout: Any) -> go.Figure:
    """A figure of these traces without a heading of its own; the page gives it its colours and its size."""
    settings: dict[str, Any] = {
        "template": "none",
        "margin": {"l": 52, "r": 12, "t": 10, "b": 38},
        "font": {"size": 12, "family": "system-ui, sans-serif"},
        "hovermode": "closest",
        "showlegend": False,
        "autosize": True,
    }
    return go.Figure(traces, {**settings, **layout})


def axis(title: str, logarithmic: bool = False, **settings: Any) -> dict[str, Any]:
    """An axis with a title, which may have signs that HTML means something by."""
    kind = {"type": "log", "exponentformat": "power"} if logarithmic else {}
    return {
        "title": {"text": escape(title), "standoff": 8},
        "automargin": True,
        "zeroline": False,
        **kind,
        **settings,
    }


def element_name(key: str) -> str:
    """What a metric's panel is called: `reward-mean` of `reward/mean`."""
    return re.sub(r"\W|_", "-", key)


def panel_html(panel: Panel) -> str:
    """Heading, note, and the element that the figure is drawn in."""
    tall = " tall" if panel.name.startswith(TALL) else ""
    note = f'<div class="note">{escape(panel.note)}</div>' if panel.note else ""
    figure = f'<div class="figure{tall}" id="figure-{panel.name}"></div>'
    return f'<div class="panel"><h3>{escape(panel.heading)}</h3>{figure}{note}</div>'
