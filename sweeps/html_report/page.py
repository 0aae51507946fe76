"""The page: all tables and figures of a report in one file that asks nobody for anything."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs
from rich.table import Table

from sweeps.curves import Curves
from sweeps.html_report.figures import arm_styles, curve_panels, is_thinned
from sweeps.html_report.panels import Panel, panel_html
from sweeps.html_report.study_section import StudySection
from sweeps.html_report.tables import rich_table
from sweeps.html_report.thinning import MOST_POINTS
from sweeps.summary import by_arm

HERE = Path(__file__).parent
HOW = (
    "Tap an arm to switch it off or on in all figures, twice to see it alone; with a mouse, drag in a figure to zoom "
    "and double-click to see all of it again."
)
BAND = "Lines are means over the seeds still going on at a step, bands reach from the smallest to the largest of them."
THINNED = (
    f"Of lines with more than {MOST_POINTS:,} points only the smallest and the largest of each of {MOST_POINTS // 2} "
    "stretches are drawn, so that every peak shows; bands reach over the whole stretch. The CSV has all steps."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a report shows.

    Page(title="demo", runs=runs, tables=summary_tables(runs)).html()
    """

    title: str
    runs: Sequence[Curves]  # that the curves show, the reference arm first; may be none
    tables: Sequence[Table]  # of arms, their differences, lead times
    study: StudySection | None = None  # None for a comparison

    def html(self) -> str:
        """The whole page."""
        curves = curve_panels(self.runs)
        of_study = self.study.panels() if self.study else []
        sections = [self.study.html() if self.study else "", self._arms(), self._curves(curves)]
        return Template(_read("page.html")).substitute(
            title=escape(self.title),
            style=_read("page.css"),
            script=_read("page.js"),
            plotly=get_plotlyjs(),
            body="\n".join(filter(None, sections)),
            figures=_payload([(panel, False) for panel in of_study] + [(panel, True) for panel in curves]),
        )

    def _arms(self) -> str:
        if not self.tables:
            return ""
        told = f"<p>Shown: {escape(self.study.shown)}.</p>" if self.study else ""
        return f"<section><h2>Arms</h2>{told}{''.join(map(rich_table, self.tables))}</section>"

    def _curves(self, panels: Sequence[Panel]) -> str:
        if not panels:
            return "<section><h2>Curves</h2><p>No run has recorded anything that could be drawn.</p></section>"
        arms = by_arm(self.runs)
        several = any(len(runs) > 1 for runs in arms.values())
        told = " ".join([HOW, *([BAND] if several else []), *([THINNED] if is_thinned(self.runs) else [])])
        grid = "".join(panel_html(panel) for panel in panels)
        legend = _legend({arm: len(runs) for arm, runs in arms.items()}, several)
        return f'<section><h2>Curves</h2><p>{told}</p>{legend}<div class="grid">{grid}</div></section>'


def _legend(num_seeds: dict[str, int], several: bool) -> str:
    styles = arm_styles(list(num_seeds))
    buttons = [
        f'<button data-arm="{escape(arm)}" aria-pressed="true">'
        f'<i style="border-color:{styles[arm].color};border-top-style:{_border(styles[arm].dash)}"></i>'
        f"{escape(arm)}{f' ({count} seeds)' if count > 1 else ''}</button>"
        for arm, count in num_seeds.items()
    ]
    seeds = ['<button class="seeds" aria-pressed="false">single seeds</button>'] if several else []
    return f'<div class="legend">{"".join(buttons + seeds)}</div>'


def _border(dash: str) -> str:
    return {"solid": "solid", "dash": "dashed"}.get(dash, "dotted")


def _payload(panels: Sequence[tuple[Panel, bool]]) -> str:
    """All figures as JSON that no HTML parser finds anything in."""
    figures = [
        f'{{"name":{json.dumps(panel.name)},"curves":{json.dumps(curves)},"figure":{panel.figure.to_json()}}}'
        for panel, curves in panels
    ]
    return f"[{','.join(figures)}]".replace("<", "\\u003c")


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
