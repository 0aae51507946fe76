"""The page as text: whole, of one piece, and with nothing in it that a user's text could have put there."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from sweeps.html_report.page import Page
from sweeps.html_report.study_section import NONE_FINISHED, StudySection
from sweeps.summary import summary_tables

EVIL = "</script><script>alert(1)</script>"


class Outline(HTMLParser):
    """Which elements a page has, and the texts of its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.scripts:
            self.scripts[-1] += data

    @property
    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.tags if "id" in attributes]


def panels(outline: Outline) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(outline.scripts[0])
    return found


def test_a_comparison_has_tables_a_legend_and_an_element_for_every_figure(make_run: Any) -> None:
    runs = [make_run(arm, seed) for arm in ("baseline", "decay") for seed in (0, 1)]
    html = Page(title="demo", runs=runs, tables=summary_tables(runs)).html()
    outline = Outline(html)
    assert [tag for tag, _ in outline.tags].count("table") == 2
    assert [attributes.get("data-arm") for tag, attributes in outline.tags if tag == "button"] == [
        *["baseline", "decay"],
        None,
    ]
    assert {f"figure-{panel['name']}" for panel in panels(outline)} == set(outline.ids) - {"figures"}
    assert all(panel["curves"] for panel in panels(outline))


def test_nothing_in_the_page_names_another_place(make_run: Any) -> None:
    outline = Outline(Page(title="demo", runs=[make_run("a")], tables=[]).html())
    assert [attributes for _, attributes in outline.tags if "src" in attributes or "href" in attributes] == []
    assert {tag for tag, _ in outline.tags}.isdisjoint({"link", "img", "iframe", "base", "object"})
    [policy] = [a["content"] for tag, a in outline.tags if tag == "meta" and "http-equiv" in a]
    assert str(policy).startswith("default-src 'none'; ")
    assert len(outline.scripts) == 3


def test_text_of_a_user_is_text(make_run: Any, make_study: Any) -> None:
    params = {"scheduler.kind": EVIL, "scheduler.patience": 2}
    study = make_study(
        1, (2, {"reason": EVIL, "params": params, "constraints": {EVIL: 1.0}}), objective=objective(EVIL), name=EVIL
    )
    runs = [make_run("baseline"), make_run(EVIL), make_run("trial-001"), make_run("trial-002")]
    section = StudySection.of(study, runs, EVIL, "study.json")
    html = Page(title=EVIL, runs=runs, tables=summary_tables(runs), study=section).html()
    outline = Outline(html)
    assert len(outline.scripts) == 3
    assert "<script>alert" not in html
    assert "alert(1)" in outline.scripts[0], "as JSON, for the figures"


def objective(metric: str) -> dict[str, Any]:
    return {"metric": metric, "last": 2, "aggregate": "mean"}


def test_a_study_has_its_trials_importance_slices_and_frontier(make_run: Any, make_study: Any) -> None:
    study = make_study(*range(6))
    runs = [make_run("baseline"), *(make_run(f"trial-{n:03d}", accuracy=0.5 + n / 100) for n in range(6))]
    section = StudySection.of(study, runs, "the baseline", "study.json")
    outline = Outline(html := Page(title="s", runs=runs, tables=summary_tables(runs), study=section).html())
    assert [panel["name"] for panel in panels(outline) if not panel["curves"]] == [
        "importance",
        "slice-scheduler-kind",
        "slice-scheduler-ratio",
        "slice-scheduler-patience",
        "frontier",
        "threshold-scheduler-kind",
        "threshold-scheduler-ratio",
        "threshold-scheduler-patience",
    ]
    assert {f"figure-{panel['name']}" for panel in panels(outline)} == set(outline.ids) - {"figures"}
    assert "Best: trial 5 with 0.55; <code>kind</code> length_triggered, <code>patience</code> 6" in html
    assert "Shown: the baseline." in html


@pytest.mark.parametrize("trials", [[], [(0, {"state": "running", "value": None}), (1, {"state": "failed"})]])
def test_a_study_in_which_nothing_has_finished_says_so(make_study: Any, trials: list[Any]) -> None:
    section = StudySection.of(make_study(*trials), [], "nothing", "study.json")
    html = Page(title="s", runs=[], tables=[], study=section).html()
    assert NONE_FINISHED in html
    assert panels(Outline(html)) == []
    assert "No run has recorded anything that could be drawn." in html


def test_a_study_in_which_every_trial_breaks_a_constraint_says_so(make_run: Any, make_study: Any) -> None:
    section = StudySection.of(make_study((0, {"constraints": {"m": 1.0}})), [make_run("trial-000")], "x", "study.json")
    assert "No complete trial keeps all constraints." in section.html()
    assert re.search(r"No importance of the parameters: It takes 2 complete trials", section.html())


def test_thinning_is_told_where_it_happened(make_run: Any) -> None:
    told = "Of lines with more than 1,000 points only"
    assert told in Page(title="x", runs=[make_run("a", steps=1001)], tables=[]).html()
    assert told not in Page(title="x", runs=[make_run("a", steps=1000)], tables=[]).html()
