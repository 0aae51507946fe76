"""`evenkeel report` on folders made by hand: what it finds, prints, writes and refuses."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config_errors import ConfigError
from orchestrator.run.folder import METRICS
from orchestrator.stability import StabilityConfig
from sweeps import cli
from sweeps.report import csv_files, write_csv
from sweeps.report_runs import find_folder, recorded_runs

ROOT = Path(__file__).resolve().parents[2]
PNG = b"\x89PNG\r\n\x1a\n"
DETECTORS = "length: {kind: length_triggered, baseline_steps: 2, smoothing: 1.0, patience: 1}\n"
TRIAL = {
    "number": 0,
    "arm": "trial-000",
    "state": "complete",
    "params": {"scheduler.ratio": 1.5},
    "value": 0.7,
    "constraints": {},
    "reason": None,
    "seeds": {"0": {"steps": 16, "executed": 6, "source": "baseline", "forked_at": 10}},
}
Command = Callable[..., tuple[int, str, str]]


def rows(surge: int | None = None, collapse: int | None = None) -> list[dict[str, float]]:
    """Sixteen steps; the length triples at step `surge`, and the verdict falls at step `collapse`, 9 or later."""
    return [
        {
            "step": step,
            "reward/mean": step / 10,
            "response/length_mean": 30.0 if surge is not None and step >= surge else 10.0,
            "gradient/nonfinite": float(collapse is not None and collapse - 10 < step <= collapse),
        }
        for step in range(16)
    ]


def record(folder: Path, recorded: Sequence[dict[str, float]]) -> None:
    folder.mkdir(parents=True)
    (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in recorded))


def record_study(folder: Path, trials: Sequence[dict[str, Any]], space: dict[str, Any] | None = None) -> None:
    folder.mkdir(parents=True)
    study = {
        "name": folder.name,
        "direction": "maximize",
        "objective": {"metric": "reward/mean", "last": 3, "aggregate": "mean"},
        "space": space or {"scheduler.ratio": {"kind": "float", "low": 1.2, "high": 3.0, "log": False}},
        "seeds": [0],
        "steps": 16,
        "sharing": True,
        "trials": trials,
        "accounting": {"executed": 22, "saved": 10, "naive": 32, "free": 0, "merged": 0},
    }
    (folder / "study.json").write_text(json.dumps(study))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """runs/ with the experiment `demo`: two collapses that were announced 8 and 5 steps ahead, and two quiet runs."""
    demo = tmp_path / "runs" / "demo"
    record(demo / "baseline" / "seed-0", rows(surge=4, collapse=12))
    record(demo / "baseline" / "seed-10", rows(surge=9, collapse=14))
    record(demo / "a-decay" / "seed-0", rows())
    record(demo / "a-decay" / "seed-2", rows())
    return tmp_path / "runs"


@pytest.fixture
def evenkeel(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process, beside runs/; returns exit code, standard output and standard error."""
    monkeypatch.chdir(runs.parent)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evenkeel", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


def row(printed: str, heading: str) -> list[str]:
    """The cells of the first line of a printed table that begins with this heading."""
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if "│" in line]
    return next(line[1:] for line in lines if line[0] == heading)


# Which runs there are.


def test_baseline_comes_first_and_seeds_count_as_numbers(runs: Path) -> None:
    found = recorded_runs(runs / "demo")
    assert [(run.arm, run.seed) for run in found] == [("baseline", 0), ("baseline", 10), ("a-decay", 0), ("a-decay", 2)]


def test_what_is_no_run_is_left_out(runs: Path) -> None:
    demo = runs / "demo"
    record(demo / "a-decay" / "seed-0.old-1", rows())
    record(demo / "a-decay" / "seed-x", rows())
    record(demo / "a-decay" / "seed-3", [])
    (demo / "a-decay" / "seed-4").mkdir()
    assert len(recorded_runs(demo)) == 4


def test_settings_given_for_all_runs_win_over_their_own(runs: Path) -> None:
    (runs / "demo" / "a-decay" / "seed-0" / "config.yaml").write_text("stability: {patience: 7}\n")
    assert [run.stability.patience for run in recorded_runs(runs / "demo")] == [10, 10, 7, 10]
    assert {run.stability.patience for run in recorded_runs(runs / "demo", StabilityConfig(patience=3))} == {3}


def test_a_folder_is_found_by_its_path_or_its_name(runs: Path) -> None:
    assert find_folder("demo", runs) == runs / "demo"
    assert find_folder(str(runs / "demo"), Path("elsewhere")) == runs / "demo"
    for name in ("gone", "", "x" * 300):
        with pytest.raises(
            ConfigError, match=rf"^FOLDER: got '{name[:70]}.*, expected a folder, or the name of one in "
        ):
            find_folder(name, runs)


# What is written.


def test_the_csv_has_a_line_per_run_with_its_collapse_and_figures(runs: Path, tmp_path: Path) -> None:
    write_csv(recorded_runs(runs / "demo"), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["arm"], line["seed"], line["steps"]) for line in lines] == [
        ("baseline", "0", "16"),
        ("baseline", "10", "16"),
        ("a-decay", "0", "16"),
        ("a-decay", "2", "16"),
    ]
    assert [(line["collapse_step"], line["collapse_reason"]) for line in lines] == [
        ("12", "nonfinite_gradient"),
        ("14", "nonfinite_gradient"),
        ("", ""),
        ("", ""),
    ]
    assert float(lines[0]["reward_last"]) == pytest.approx(1.3)  # the mean of 1.1 to 1.5
    assert float(lines[0]["length_first"]) == pytest.approx((4 * 10 + 30) / 5)
    assert float(lines[3]["length_last"]) == 10.0
    assert "noise_scale_last" not in lines[0]


def test_a_figure_that_one_run_lacks_is_empty_in_the_csv(runs: Path, tmp_path: Path) -> None:
    record(runs / "demo" / "z" / "seed-0", [{"step": 0, "gradient/norm_smoothed": 0.5}])
    write_csv(recorded_runs(runs / "demo"), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["smoothed_norm_last"] for line in lines] == ["", "", "", "", "0.5"]
    assert lines[4]["reward_last"] == ""


# The command.


def test_the_report_prints_arms_and_differences_and_writes_page_and_figure(evenkeel: Command, runs: Path) -> None:
    code, out, err = evenkeel("report", "demo")
    assert (code, err) == (0, "")
    assert row(out, "seeds") == ["0, 10", "0, 2"]
    assert row(out, "collapsed")[1] == "0 of 2"
    assert row(out, "collapsed")[0].startswith("2 of 2 (100%), steps 12-14:")
    assert row(out, "common seeds") == ["0"]
    assert row(out, "reward, last") == ["1.300", "1.300"]
    assert "lead time" not in out
    assert "figure: runs/demo/comparison.png" in out
    assert (runs / "demo" / "comparison.png").read_bytes().startswith(PNG)
    assert "report: runs/demo/report.html" in out
    assert (runs / "demo" / "report.html").read_text().startswith("<!doctype html>")
    assert (runs / "demo" / "report.csv").read_text().startswith("arm,seed,steps,collapse_step,")
    assert (runs / "demo" / "curves.csv").read_text().startswith("arm,seed,step,key,value\n")
    assert not (runs / "demo" / "trials.csv").exists()


def test_a_page_of_another_name_has_its_csv_beside_it_and_no_picture(evenkeel: Command, runs: Path) -> None:
    Path("there").mkdir()
    code, out, _ = evenkeel("report", "demo", "--out", "there/x.html")
    assert (code, "figure: " in out) == (0, False)
    assert sorted(path.name for path in Path("there").iterdir()) == ["x-curves.csv", "x.csv", "x.html"]
    assert not (runs / "demo" / "report.html").exists()
    assert csv_files(Path("a/report.html"))["trials"] == Path("a/trials.csv")


def test_the_page_has_the_lead_times_of_the_detectors(evenkeel: Command, runs: Path) -> None:
    Path("d.yaml").write_text(DETECTORS)
    assert evenkeel("report", "demo", "--detectors", "d.yaml")[0] == 0
    assert "6.5 (5-8)" in (runs / "demo" / "report.html").read_text()


def test_the_report_on_a_study_shows_its_trials(evenkeel: Command, runs: Path) -> None:
    record_study(runs / "study", [TRIAL])
    record(runs / "study" / "baseline" / "seed-0", rows(surge=4, collapse=12))
    record(runs / "study" / "trial-000" / "seed-0", rows())
    code, out, _ = evenkeel("report", "study")
    assert code == 0
    assert row(out, "collapsed")[1] == "0 of 1"
    assert "Best: trial 0 with 0.7;" in (runs / "study" / "report.html").read_text()
    assert (runs / "study" / "trials.csv").read_text().startswith("trial,state,value,scheduler.ratio,")


def test_a_study_without_a_finished_trial_has_a_page_that_says_so(evenkeel: Command, runs: Path) -> None:
    record_study(runs / "study", [{**TRIAL, "state": "failed", "value": None, "reason": "<script>alert(1)</script>"}])
    code, out, err = evenkeel("report", "study")
    assert (code, err) == (0, "")
    assert "No trial of this study has finished yet" in out
    page = (runs / "study" / "report.html").read_text()
    assert "No trial of this study has finished yet" in page
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert not (runs / "study" / "comparison.png").exists()


def test_with_detectors_the_report_prints_their_lead_times(evenkeel: Command, runs: Path) -> None:
    Path("d.yaml").write_text(DETECTORS)
    code, out, _ = evenkeel("report", "runs/demo", "--detectors", "d.yaml", "--out", "f.PNG", "--csv", "f.csv")
    assert code == 0
    assert row(out, "length") == ["2 of 2", "6.5 (5-8)", "0 of 2", "0 of 2", "0", "0"]
    assert Path("f.PNG").read_bytes().startswith(PNG)
    assert Path("f.csv").read_text().startswith("arm,seed,steps,collapse_step,")
    assert not (runs / "demo" / "comparison.png").exists()


def test_the_stability_of_the_detectors_file_judges_all_runs(evenkeel: Command) -> None:
    Path("d.yaml").write_text(DETECTORS + "stability: {patience: 11}\n")
    code, out, _ = evenkeel("report", "demo", "--detectors", "d.yaml")
    assert code == 0
    assert row(out, "collapsed") == ["0 of 2", "0 of 2"]
    assert row(out, "length") == ["0 of 0", "-", "0 of 0", "2 of 4", "0", "0"]


def test_a_run_that_still_goes_on_is_no_stable_one(evenkeel: Command, runs: Path) -> None:
    Path("d.yaml").write_text(DETECTORS)
    (runs / "demo" / "a-decay" / "seed-2" / "config.yaml").write_text("steps: 17\n")
    code, out, _ = evenkeel("report", "demo", "--detectors", "d.yaml")
    assert code == 0
    assert row(out, "length") == ["2 of 2", "6.5 (5-8)", "0 of 2", "0 of 1", "1", "0"]


def test_names_are_printed_as_they_are(evenkeel: Command) -> None:
    Path("d.yaml").write_text(DETECTORS.replace("length:", '"[/bold] [red]it":'))
    code, out, _ = evenkeel("report", "demo", "--detectors", "d.yaml")
    assert code == 0
    assert row(out, "[/bold] [red]it")[0] == "2 of 2"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gone"], "FOLDER: got 'gone', expected a folder, or the name of one in runs"),
        (["empty"], "runs/empty: expected recorded runs: <arm>/seed-<n>/metrics.jsonl with at least one step"),
        (["torn"], "runs/torn/a/seed-0/metrics.jsonl: line 2: step: got 'one', expected a step number, 0 or more"),
        (["wrong"], "runs/wrong/a/seed-0/config.yaml: stability.patience: got 0, expected greater than or equal to 1"),
        (["demo", "--detectors", "gone.yaml"], "gone.yaml: expected a readable file (No such file or directory)"),
        (["demo", "--detectors", "bad.yaml"], "bad.yaml: it.kind: got 'magic', expected a kind out of 'constant', "),
        (["demo", "--out", "figure.gif"], "--out: got 'figure.gif', expected a file name that ends in .html or .png"),
        (
            ["demo", "--out", "folder.html"],
            "the CSV beside --out: got 'folder.csv', expected a file, new or to be replaced",
        ),
        (["study"], "runs/study/study.json: trials.0.state: got 'won', expected "),
        (["wild"], "runs/wild/study.json: space.a: kind: got 'magic', expected "),
        (["demo", "--out", "bad.yaml/f.png"], "--out: got 'bad.yaml/f.png', expected a file in a folder that exists"),
        (["demo", "--out", "gone/f.png"], "--out: got 'gone/f.png', expected a file in a folder that exists"),
        (["demo", "--out", "folder.png"], "--out: got 'folder.png', expected a file, new or to be replaced"),
        (["demo", "--csv", "gone/f.csv"], "--csv: got 'gone/f.csv', expected a file in a folder that exists"),
        (["demo", "--csv", "runs"], "--csv: got 'runs', expected a file, new or to be replaced"),
        (
            ["demo", "--out", "f.png", "--csv", "./f.png"],
            "--csv: got 'f.png', expected another file than that of --out",
        ),
        (
            ["demo", "--detectors", "bad.yaml", "--csv", "bad.yaml"],
            "--csv: got 'bad.yaml', expected another file than the detectors",
        ),
        (
            ["demo", "--csv", "runs/demo/a-decay/seed-0/metrics.jsonl"],
            "--csv: got 'runs/demo/a-decay/seed-0/metrics.jsonl', expected another file than a run's own",
        ),
        (
            ["demo", "--detectors", "lost.yaml"],
            "lost.yaml: it.signal: got 'reward/maen', expected a metric that a run has recorded; "
            "did you mean 'reward/mean'? one of: gradient/nonfinite, response/length_mean, reward/mean",
        ),
        ([""], "FOLDER: got '', expected a folder, or the name of one in runs"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    evenkeel: Command, runs: Path, arguments: list[str], told: str
) -> None:
    (runs / "empty").mkdir()
    for name in ("torn", "wrong"):
        record(runs / name / "a" / "seed-0", rows())
    (runs / "torn" / "a" / "seed-0" / METRICS).write_text('{"step": 0}\n{"step": "one"}\n')
    (runs / "wrong" / "a" / "seed-0" / "config.yaml").write_text("stability: {patience: 0}\n")
    Path("bad.yaml").write_text("it: {kind: magic}\n")
    Path("lost.yaml").write_text("it: {kind: signal_triggered, signal: reward/maen}\n")
    Path("folder.png").mkdir()
    Path("folder.csv").mkdir()
    record_study(runs / "study", [{**TRIAL, "state": "won"}])
    record_study(runs / "wild", [], {"a": {"kind": "magic"}})
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    code, out, err = evenkeel("report", *arguments)
    assert (code, out) == (2, "")
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert err.startswith(f"evenkeel: {told}")
    assert err.count("\n") == 1


def test_the_report_loads_nothing_heavy(runs: Path) -> None:
    code = (
        "import sys; sys.argv = ['evenkeel', 'report', 'demo']\n"
        "from sweeps.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'ray', 'vllm', 'mlflow', 'optuna'} & set(sys.modules)), file=sys.stderr)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (0, ["[]"])
