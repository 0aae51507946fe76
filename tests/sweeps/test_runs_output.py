"""How runs look: columns as there is room for, a page of one run, names and texts as they are."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from run_folders import make_checkpoint, make_run

from orchestrator.run.status import RunStatus
from sweeps.run_summary import RunSummary
from sweeps.runs_output import as_json, show_list, show_run

ENDED = replace(
    RunStatus.begin(),
    status="failed",
    started="2026-03-01T12:00:00Z",
    ended="2026-03-01T14:30:09Z",
    resumes=1,
    mlflow_run_id="0c5b1c",
    detail="learner-0: died in [bold]apply",
)


@pytest.fixture
def run(tmp_path: Path) -> RunSummary:
    folder = make_run(tmp_path / "runs" / "demo" / "decay" / "seed-0", status=ENDED)
    make_checkpoint(folder, "step-000040", 3000)
    make_checkpoint(folder, ".step-000060.partial", 72)
    return RunSummary.read("demo/decay/seed-0", folder)


def printed(show: object, *arguments: object, width: int = 120) -> list[list[str]]:
    """The lines, as cells where they belong to a table."""
    out = io.StringIO()
    show(*arguments, Console(file=out, width=width))  # type: ignore[operator]
    return [[cell.strip() for cell in line.strip("│┃").split("│")] for line in out.getvalue().splitlines()]


def test_a_row_tells_state_steps_checkpoints_sizes_and_time(run: RunSummary) -> None:
    size = f"{run.num_bytes / 1024:.3g} KiB"
    lines = printed(show_list, [run], Path("runs"))
    assert ["demo/decay/seed-0", "failed", "3 of 5", "1, to 40", "3 KiB", size, "2026-03-01 14:30"] in lines
    assert lines[-1] == [f"1 run, {size}, of which checkpoints 3 KiB"]


@pytest.mark.parametrize(("width", "columns"), [(100, 7), (80, 6), (70, 5)])
def test_what_is_less_urgent_is_left_out_where_there_is_no_room(run: RunSummary, width: int, columns: int) -> None:
    lines = printed(show_list, [run], Path("runs"), width=width)
    rows = [line for line in lines if line[0] == "demo/decay/seed-0"]
    assert [len(row) for row in rows] == [columns]


def test_what_is_wrong_with_a_run_stands_below_the_table(run: RunSummary) -> None:
    broken = replace(run, state="broken", status=None, steps_done=None, steps=None, problems=("run.json: [b]what",))
    lines = printed(show_list, [run, broken], Path("runs"))
    assert lines[-2] == ["demo/decay/seed-0: run.json: [b]what"]
    assert any(line[1:3] == ["broken", "? of ?"] and line[-1] == "-" for line in lines)


def test_where_there_are_no_runs_that_is_said() -> None:
    assert printed(show_list, [], Path("runs")) == [["no runs in runs"]]


def test_the_json_of_a_run_has_its_figures(run: RunSummary) -> None:
    told = json.loads(json.dumps(as_json(run)))
    assert told == {
        "run": "demo/decay/seed-0",
        "folder": str(run.path),
        "state": "failed",
        "steps_done": 3,
        "steps": 5,
        "checkpoints": 1,
        "last_checkpoint": 40,
        "checkpoint_bytes": 3072,
        "bytes": run.num_bytes,
        "started": "2026-03-01T12:00:00Z",
        "ended": "2026-03-01T14:30:09Z",
        "resumes": 1,
        "detail": "learner-0: died in [bold]apply",
        "mlflow_run_id": "0c5b1c",
        "problems": [],
    }
    bare = as_json(replace(run, status=None, checkpoints=(), problems=("what",)))
    assert (bare["started"], bare["last_checkpoint"], bare["problems"]) == (None, None, ["what"])


def test_the_page_of_a_run_tells_how_it_ended_and_lists_checkpoints_and_files(run: RunSummary) -> None:
    (run.path / "verdict.json").write_text('{"collapsed": true, "step": 2, "reason": "reward", "detail": "it fell"}\n')
    lines = printed(show_run, run)
    for row in (
        ["state", "failed: learner-0: died in [bold]apply"],
        ["ended", "2026-03-01T14:30:09Z"],
        ["resumed", "once"],
        ["MLflow run", "0c5b1c"],
        ["steps", "3 of 5"],
        ["scheduler", "constant"],
        ["verdict", "collapsed at step 2: it fell"],
        ["step 40", "complete", "2.93 KiB"],
        ["step 60", "unfinished", "72 B"],
        ["checkpoints", "3 KiB"],
        ["metrics.jsonl", "36 B"],
    ):
        assert row in lines


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        ('{"collapsed": false}', "no collapse"),
        ("[]", "verdict.json cannot be used"),
        ("{", "verdict.json cannot be used"),
    ],
)
def test_a_verdict_is_told_or_that_it_cannot_be_used(run: RunSummary, verdict: str, told: str) -> None:
    assert ["verdict", "-"] in printed(show_run, run)
    (run.path / "verdict.json").write_text(verdict)
    assert ["verdict", told] in printed(show_run, run)


def test_a_run_that_died_names_its_newest_complete_checkpoint(run: RunSummary) -> None:
    for checkpoints, newest in ((run.checkpoints, "that of step 40"), ((), "none")):
        died = replace(run, state="died", checkpoints=checkpoints)
        told = f"died: its process is gone and has written no end; newest complete checkpoint: {newest}"
        assert ["state", told] in printed(show_run, died)
