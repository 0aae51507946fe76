"""Where a step's record goes, in which order, and how a collapse is told and acted upon."""

from collections.abc import Mapping
from typing import Any, Literal, cast

import pytest

from orchestrator.progress import Progress
from orchestrator.recorder import Recorder
from orchestrator.records import StepRecord
from orchestrator.run_folder import RunFolder
from orchestrator.stability import StabilityConfig
from orchestrator.tracking import TrackedRun

FIRST_BAD, PATIENCE = 4, 3
COLLAPSE = FIRST_BAD + PATIENCE - 1  # the step at which the gradient has been bad for PATIENCE steps


class FakeLog:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, *arguments: object) -> None:
        self.lines.append(text % arguments)


class FakeFolder:
    """Keeps what is written, as it was at that moment."""

    def __init__(self, journal: list[str]) -> None:
        self.journal = journal
        self.log = FakeLog()
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.verdicts: list[dict[str, Any]] = []

    def write_step(self, step: int, metrics: dict[str, float]) -> None:
        self.journal.append("folder")
        self.steps.append((step, dict(metrics)))

    def write_verdict(self, verdict: Mapping[str, Any]) -> None:
        self.verdicts.append(dict(verdict))


class FakeTracked:
    def __init__(self, journal: list[str]) -> None:
        self.journal = journal
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.tags: dict[str, str] = {}

    def log_step(self, record: StepRecord) -> None:
        self.journal.append("mlflow")
        self.steps.append((record.step, dict(record.metrics)))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags |= tags


class FakeProgress:
    def __init__(self, journal: list[str]) -> None:
        self.journal = journal
        self.shown: list[int] = []
        self.said: list[str] = []

    def show(self, record: StepRecord) -> None:
        self.journal.append("screen")
        self.shown.append(record.step)

    def say(self, text: str) -> None:
        self.said.append(text)


class Desk:
    """A recorder between fakes."""

    def __init__(self, on_collapse: Literal["stop", "record"] = "stop") -> None:
        self.journal: list[str] = []
        self.folder, self.tracked = FakeFolder(self.journal), FakeTracked(self.journal)
        self.progress = FakeProgress(self.journal)
        self.recorder = Recorder(
            cast(RunFolder, self.folder),
            cast(TrackedRun, self.tracked),
            cast(Progress, self.progress),
            StabilityConfig(on_collapse=on_collapse, patience=PATIENCE),
        )

    def record(self, steps: int) -> list[bool]:
        """Record that many steps; from FIRST_BAD on the gradient is not finite."""
        return [self.recorder.record(record(step, bad=step >= FIRST_BAD)) for step in range(steps)]


def record(step: int, *events: str, bad: bool = False) -> StepRecord:
    return StepRecord(step=step, time_ms=0, metrics={"gradient/nonfinite": 2.0 * bad}, events=events)


def test_a_step_goes_to_the_folder_first_then_to_mlflow_then_to_the_screen() -> None:
    desk = Desk()
    desk.record(2)
    assert desk.journal == ["folder", "mlflow", "screen"] * 2
    assert (
        desk.folder.steps == desk.tracked.steps == [(0, {"gradient/nonfinite": 0.0}), (1, {"gradient/nonfinite": 0.0})]
    )
    assert desk.progress.shown == [0, 1]


def test_events_of_the_policy_stand_in_the_log() -> None:
    desk = Desk()
    desk.recorder.record(record(0))
    desk.recorder.record(record(1, "surge", "decay"))
    assert desk.folder.log.lines == ["step 1: surge, decay"]


def test_the_run_is_ended_exactly_at_the_collapse_when_the_experiment_says_stop() -> None:
    assert Desk("stop").record(COLLAPSE + 1) == [True] * COLLAPSE + [False]


def test_the_run_is_never_ended_when_the_experiment_says_record() -> None:
    assert Desk("record").record(COLLAPSE + 20) == [True] * (COLLAPSE + 20)


@pytest.mark.parametrize("on_collapse", ["stop", "record"])
def test_a_verdict_goes_to_its_file_to_mlflow_to_the_log_and_to_the_screen(
    on_collapse: Literal["stop", "record"],
) -> None:
    desk = Desk(on_collapse)
    desk.record(COLLAPSE + 1)
    detail = "the gradient had 2 non-finite elements, 3 steps in a row"
    assert desk.folder.verdicts == [
        {"collapsed": True, "step": COLLAPSE, "reason": "nonfinite_gradient", "detail": detail}
    ]
    assert desk.tracked.tags == {
        "collapsed": "true",
        "collapse.step": str(COLLAPSE),
        "collapse.reason": "nonfinite_gradient",
    }
    follows = {"stop": "the run stops", "record": "the run goes on"}[on_collapse]
    assert desk.progress.said == [f"collapsed at step {COLLAPSE}: {detail}; {follows}"]
    assert desk.folder.log.lines == [f"collapsed at step {COLLAPSE}: nonfinite_gradient: {detail}"]


def test_the_step_of_the_verdict_and_no_other_has_it_among_its_metrics_everywhere() -> None:
    desk = Desk("record")
    desk.record(COLLAPSE + 5)
    for steps in (desk.folder.steps, desk.tracked.steps):
        assert {
            step: metrics["stability/collapsed"] for step, metrics in steps if "stability/collapsed" in metrics
        } == {COLLAPSE: 1.0}


def test_a_verdict_is_told_once_however_long_the_run_goes_on() -> None:
    desk = Desk("record")
    desk.record(COLLAPSE + 20)
    desk.recorder.conclude()
    assert len(desk.folder.verdicts) == len(desk.progress.said) == 1
    assert desk.tracked.tags["collapsed"] == "true"


def test_a_run_that_ends_without_a_collapse_says_so() -> None:
    desk = Desk()
    desk.record(COLLAPSE)  # one step short of it
    assert (desk.folder.verdicts, desk.tracked.tags) == ([], {})
    desk.recorder.conclude()
    assert desk.folder.verdicts == [{"collapsed": False}]
    assert desk.tracked.tags == {"collapsed": "false"}
    assert desk.progress.said == []
