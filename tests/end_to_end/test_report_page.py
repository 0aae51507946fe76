"""The report's page in a real browser: drawn in time, without an error, asking nobody for anything."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from browser import Page, Scheme, open_page
from rich.console import Console

from orchestrator.run.folder import METRICS
from sweeps.html_report.study_section import NONE_FINISHED
from sweeps.report import write_report
from sweeps.report_runs import recorded_runs

pytestmark = pytest.mark.slow

ARMS, SEEDS, STEPS = ("baseline", "decay", "late", "tis"), 5, 3000
MOST_BYTES = 10_000_000
TRIAL: dict[str, Any] = {
    "arm": "trial-000",
    "number": 0,
    "state": "complete",
    "params": {"scheduler.ratio": 1.5, "scheduler.patience": 3},
    "value": 0.7,
    "constraints": {"mismatch p95": -0.1},
    "reason": None,
    "seeds": {"0": {"steps": 40, "executed": 6, "source": "baseline", "forked_at": 34}},
}
DRAWN = "document.body.dataset.drawnMs"
FIGURES = "[...document.querySelectorAll('.figure')]"


def record(folder: Path, steps: int, grows: float) -> None:
    """A run whose mismatch grows that much, with all that the page draws; the noise is the same every time."""
    rows = []
    for step in range(steps):
        noise = math.sin(step * 12.9898 + grows * 78.233) * 43758.5453 % 1
        row = {
            "step": step,
            "reward/mean": 0.2 + 0.5 * step / steps + 0.05 * noise,
            "mismatch/log_ppl_abs_diff": 0.001 * math.exp(grows * step / steps + noise / 5),
            "gradient/norm_smoothed": 0.3 * math.exp(grows * step / steps / 2),
            "gradient/noise_scale": 40 * math.exp(noise),
            "response/length_mean": 900 + 2500 / (1 + math.exp(3 - 20 * step / steps)) + 90 * noise,
            "scheduler/lr": 1e-6 * 0.5 ** (4 * step // steps),
        }
        if step % 20 == 0:
            row["eval/held_out/avg@4"] = 0.2 + 0.3 * step / steps + 0.02 * noise
        if step % (steps // 4) == steps // 8:
            row["scheduler/event/decay"] = 1.0
        rows.append(row)
    folder.mkdir(parents=True)
    (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))


def report(folder: Path) -> Path:
    write_report(recorded_runs(folder), folder, folder.name, Console(quiet=True))
    return folder / "report.html"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page on 20 runs of 3,000 steps."""
    folder = tmp_path_factory.mktemp("runs") / "large"
    for number, arm in enumerate(ARMS):
        for seed in range(SEEDS):
            record(folder / arm / f"seed-{seed}", STEPS, 1.0 + number + seed / 10)
    return report(folder)


def study(folder: Path, trials: list[dict[str, Any]]) -> Path:
    record(folder / "baseline" / "seed-0", 40, 3.0)
    for trial in trials:
        record(folder / trial["arm"] / "seed-0", 40, 1.0 + trial["number"] / 10)
    tree = {
        "name": folder.name,
        "direction": "maximize",
        "objective": {"metric": "reward/mean", "last": 3, "aggregate": "mean"},
        "space": {
            "scheduler.ratio": {"kind": "float", "low": 1.2, "high": 3.0, "log": True},
            "scheduler.patience": {"kind": "int", "low": 1, "high": 8, "log": False},
        },
        "seeds": [0],
        "steps": 40,
        "sharing": True,
        "trials": trials,
        "accounting": {"executed": 46, "saved": 34, "naive": 80, "free": 0, "merged": 0},
    }
    (folder / "study.json").write_text(json.dumps(tree))
    return report(folder)


def trial(number: int, **changed: Any) -> dict[str, Any]:
    params = {"scheduler.ratio": 1.3 + 0.3 * number, "scheduler.patience": 1 + number * 3 % 8}
    own = {"number": number, "arm": f"trial-{number:03d}", "value": 0.5 + number / 100, "params": params}
    return {**TRIAL, **own, **changed}


def check_quiet(page: Page) -> None:
    """Drawn, without an error, without a request, and no wider than the window."""
    page.wait_for(DRAWN)
    assert page.errors == []
    assert page.requests == [page.url]
    assert page.evaluate(f"{FIGURES}.every(figure => figure.querySelector('svg.main-svg'))")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 400),
        ("dark", 1400),
        pytest.param("light", 1400, marks=pytest.mark.long),
        pytest.param("dark", 400, marks=pytest.mark.long),
    ],
)
def test_twenty_runs_of_three_thousand_steps_are_drawn(large: Path, width: int, scheme: Scheme) -> None:
    assert large.stat().st_size < MOST_BYTES
    with open_page(large.as_uri(), width, scheme) as page:
        check_quiet(page)
        brightness = "color => Number(color.match(/[0-9]+/)[0])"  # that of its red
        dark = f"(s => ({brightness})(s.backgroundColor) < ({brightness})(s.color))(getComputedStyle(document.body))"
        assert page.evaluate(dark) == (scheme == "dark")
        print(f"drawn {page.evaluate(DRAWN)} ms after the page was asked for; {large.stat().st_size:,} bytes")


def test_an_arm_is_switched_off_in_all_figures_and_seeds_are_shown_on_demand(large: Path) -> None:
    def hidden(meta: str) -> str:
        return f"{FIGURES}.map(f => f.data.filter(t => {meta}).every(t => t.visible === false))"

    with open_page(large.as_uri()) as page:
        page.wait_for(DRAWN)
        page.evaluate("document.querySelector('[data-arm=decay]').click()")
        page.wait_for(f"{hidden('t.meta.arm === `decay`')}.every(Boolean)")
        assert page.evaluate(f"{hidden('t.meta.arm === `late`')}.some(Boolean)") is False
        page.evaluate("document.querySelector('.seeds').click()")
        page.wait_for(f"{hidden('t.meta.arm === `late` && t.meta.role === `seed`')}.slice(0, 5).every(x => !x)")
        assert page.evaluate(f"{hidden('t.meta.arm === `decay`')}.every(Boolean)") is True
        assert page.errors == []


def test_zooming_one_figure_zooms_all(large: Path) -> None:
    with open_page(large.as_uri()) as page:
        page.wait_for(DRAWN)
        zoom = "{'xaxis.range[0]': 10, 'xaxis.range[1]': 50}"
        page.evaluate(f"void Plotly.relayout(document.querySelector('.figure'), {zoom})")
        page.wait_for(f"{FIGURES}.every(f => Math.round(f.layout.xaxis.range[1]) === 50)")
        assert page.errors == []


def test_a_study_is_drawn_and_its_trials_can_be_sorted(tmp_path: Path) -> None:
    evil = '<script>document.title = "taken"</script><img src="http://203.0.113.1/a.png">'
    failed = trial(5, state="failed", value=None, reason=evil)
    path = study(tmp_path / "thresholds", [*map(trial, range(5)), failed])
    with open_page(path.as_uri()) as page:
        check_quiet(page)
        page.wait_for_text("Stability frontier", evil)
        assert page.evaluate("document.title") == "thresholds"
        column = "[...document.querySelectorAll('.sortable tbody tr')].map(row => row.cells[0].innerText)"
        assert page.evaluate(column) == ["0", "1", "2", "3", "4", "5"]
        for order in (["0", "1", "2", "3", "4", "5"], ["4", "3", "2", "1", "0", "5"]):
            page.evaluate("document.querySelectorAll('.sortable th')[2].click()")
            assert page.evaluate(column) == order, "by value; a trial without one stays last"


def test_a_study_without_a_finished_trial_says_so(tmp_path: Path) -> None:
    path = study(tmp_path / "young", [trial(0, state="running", value=None)])
    with open_page(path.as_uri(), width=400) as page:
        check_quiet(page)
        page.wait_for_text(NONE_FINISHED)
