"""What a study ends with: a table, a sentence, the best parameters, Optuna's plots."""

import os
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from rich.console import Console

from orchestrator.run.folder import RunFolderFull
from sweeps.report import REPORT
from sweeps.study.conclusion import PLOTS, accounts, conclude, parameters, trial_table
from sweeps.study.record import STUDY, Accounting, ObjectiveRecord, SeedRecord, StudyRecord, TrialRecord

SPACE: dict[str, dict[str, Any]] = {
    "scheduler.kind": {"kind": "categorical", "choices": ["length_triggered", "signal_triggered"]},
    "scheduler.signal": {"kind": "categorical", "choices": ["gradient/norm"]},
    "scheduler.ratio": {"kind": "float", "low": 1.2, "high": 3.0},
}


class Parent:
    """The study at MLflow: keeps what it is told."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.artifacts: list[str] = []

    def set_tags(self, tags: dict[str, str]) -> None:
        self.tags |= tags

    def log_artifact(self, path: Path) -> None:
        assert path.exists()
        self.artifacts.append(path.name)


class Ending:
    """A study of `sweeps` that is concluded on a screen of its own."""

    def __init__(self, sweeps: Any, changes: dict[str, Any]) -> None:
        self.sweep, self.store = sweeps.read(changes), sweeps.open(changes)
        self.parent, self.screen = Parent(), StringIO()
        self._sweeps = sweeps

    def conclude(self) -> str:
        console: Any = Console(file=self.screen, width=160)
        conclude(self.sweep, self._sweeps.runs, self.store, self.parent, console)  # type: ignore[arg-type]
        return self.screen.getvalue()


def study(*trials: TrialRecord, **account: int) -> StudyRecord:
    costs = {"executed": 800, "saved": 990, "naive": 1790, "free": 3, "merged": 2} | account
    return StudyRecord(
        name="ratios",
        direction="maximize",
        objective=ObjectiveRecord(metric="reward/mean", last=3, aggregate="mean"),
        space=SPACE,
        seeds=[0, 1],
        steps=20,
        sharing=True,
        trials=list(trials),
        accounting=Accounting(**costs),
    )


def trial(number: int, **changes: Any) -> TrialRecord:
    fields: dict[str, Any] = {
        "number": number,
        "arm": f"trial-{number:03d}",
        "state": "complete",
        "params": {"scheduler.kind": "length_triggered", "scheduler.ratio": 1.23456},
        "value": 0.5,
        "constraints": {},
        "reason": None,
        "seeds": {
            "0": SeedRecord(steps=20, executed=8, source="baseline", forked_at=12),
            "1": SeedRecord(steps=20, executed=20),
        },
    }
    return TrialRecord(**(fields | changes))


def lines_of(record: StudyRecord) -> list[list[str]]:
    """The cells of the table's lines."""
    columns = [list(column.cells) for column in trial_table(record).columns]
    return [[str(cell) for cell in line] for line in zip(*columns, strict=True)]


def test_the_table_has_a_line_per_trial_and_a_star_at_the_best() -> None:
    record = study(
        trial(0),
        trial(1, value=0.75),
        trial(2, value=0.9, constraints={"a": 0.1}),
        trial(3, value=None, state="pruned", seeds={}, params={}),
        trial(4, value=None, state="failed", seeds={"0": SeedRecord(steps=3, executed=3)}),
    )
    chosen = "kind length_triggered, ratio 1.235"
    assert lines_of(record) == [
        ["0", "complete", "0.5", chosen, "8/20 20/20", "baseline@12 -"],
        ["1 *", "complete", "0.75", chosen, "8/20 20/20", "baseline@12 -"],
        ["2", "complete, breaks a constraint", "0.9", chosen, "8/20 20/20", "baseline@12 -"],
        ["3", "pruned", "", "", "", ""],
        ["4", "failed", "", chosen, "3/3", "-"],
    ]


def test_parameters_without_a_choice_are_left_out() -> None:
    chosen = trial(0, params={"scheduler.signal": "gradient/norm", "scheduler.kind": "signal_triggered", "steps": 7})
    assert parameters(chosen, SPACE) == "kind signal_triggered, steps 7"


@pytest.mark.parametrize(
    ("account", "sentence"),
    [
        ({}, "800 training steps instead of 1,790 (45%): 990 shared, 3 trials free, 2 merged"),
        (
            {"executed": 40, "naive": 0, "saved": 0, "free": 0, "merged": 0},
            "40 training steps instead of 0: 0 shared, 0 trials free, 0 merged",
        ),
    ],
)
def test_what_it_has_cost_in_one_sentence(account: dict[str, int], sentence: str) -> None:
    assert accounts(study(**account)) == sentence


def test_a_study_with_nothing_finished_says_so(sweeps: Any) -> None:
    ending = Ending(sweeps, {})
    told = ending.conclude()
    assert "0 training steps instead of 0" in told
    assert "no trial has finished within the constraints" in told
    assert (ending.parent.tags, ending.parent.artifacts) == ({}, [STUDY, REPORT])
    assert "No trial of this study has finished yet" in (sweeps.folder / REPORT).read_text()
    assert StudyRecord.read(sweeps.folder).trials == []


def test_the_best_parameters_and_all_files_reach_mlflow(sweeps: Any, drive: Any) -> None:
    ending = Ending(sweeps, {"trials": 3})
    trials = list(drive(ending.store, ending.sweep, sweeps.folder).work())
    told = ending.conclude()
    best = max(trials, key=lambda done: done.value)
    assert f"{best.number} *" in told
    assert ending.parent.tags == {
        "best.trial": str(best.number),
        "best.value": f"{best.value:.6g}",
        "best.scheduler.ratio": str(best.params["scheduler.ratio"]),
        "best.scheduler.patience": str(best.params["scheduler.patience"]),
    }
    assert ending.parent.artifacts == [STUDY, REPORT, PLOTS]
    assert len(StudyRecord.read(sweeps.folder).trials) == 3


def test_the_plots_need_no_network_and_come_with_two_values(sweeps: Any, drive: Any) -> None:
    ending = Ending(sweeps, {"trials": 3})
    driver = drive(ending.store, ending.sweep, sweeps.folder)
    driver.run(0)
    pruned = ending.store._begin(1, None, None)
    pruned.report(0.9, 0)
    ending.store.tell(pruned, None, TrialState.PRUNED)  # has a value at Optuna
    ending.conclude()
    assert not (sweeps.folder / PLOTS).exists()
    driver.run(2)
    ending.conclude()
    page = (sweeps.folder / PLOTS).read_text()
    assert page.startswith("<!doctype html>")
    assert "<title>ratios</title>" in page
    assert 'script src="' not in page
    assert page.count("Plotly.newPlot(") >= 4


def test_a_disk_that_is_full_is_told_and_the_table_is_shown(
    sweeps: Any, drive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = Ending(sweeps, {"trials": 1})
    drive(ending.store, ending.sweep, sweeps.folder).run(0)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderFull, match="No space left on device; make room and go on with --resume"):
        ending.conclude()
    assert "0 *" in ending.screen.getvalue()
    assert not (sweeps.folder / STUDY).exists()
