"""Where a step's record goes and in which order, also when it is done again, and how a collapse is acted upon."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import ExperimentConfig
from orchestrator.records import StepRecord
from orchestrator.run.folder import LOG, METRICS, VERDICT, RunFolder
from orchestrator.run.progress import Progress
from orchestrator.run.recorder import Recorder
from orchestrator.stability import StabilityConfig
from orchestrator.tracking.tracker import TrackedRun

FIRST_BAD, PATIENCE = 4, 3
COLLAPSE = FIRST_BAD + PATIENCE - 1  # the step at which the gradient has been bad for PATIENCE steps
CONFIG = ExperimentConfig.model_validate(
    {
        "name": "e",
        "model": {"path": "embedded"},
        "task": {"kind": "arithmetic"},
        "rollout": {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": 8},
        "scheduler": {"kind": "constant", "lr": 1e-6},
        "steps": 10,
    }
)


class FakeTracked:
    """MLflow, which must hear of a step only when it is in the folder."""

    def __init__(self, journal: list[str], folder: Path) -> None:
        self.journal = journal
        self.metrics = folder / METRICS
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.tags: dict[str, str] = {}

    def log_step(self, record: StepRecord) -> None:
        assert {"step": record.step, **record.metrics} in rows(self.metrics)
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


class FakeWatch:
    """Has seen enough after a step, when that stands in the folder."""

    def __init__(self, journal: list[str], folder: Path, enough: int) -> None:
        self.journal = journal
        self.metrics = folder / METRICS
        self.enough = enough
        self.seen: list[int] = []

    def see(self, record: StepRecord) -> bool:
        assert {"step": record.step, **record.metrics} in rows(self.metrics)
        self.journal.append("watch")
        self.seen.append(record.step)
        return record.step < self.enough

    def closing_tags(self) -> dict[str, str]:
        raise AssertionError("the recorder does not end the run")


class FakeGauges:
    def __init__(self, journal: list[str]) -> None:
        self.journal = journal
        self.shown: list[tuple[int, dict[str, float], bool]] = []

    def show(self, step: int, metrics: Mapping[str, float], *, collapsed: bool) -> None:
        self.journal.append("gauges")
        self.shown.append((step, dict(metrics), collapsed))


class Desk:
    """A recorder of a run in a real folder, between fakes."""

    def __init__(
        self,
        path: Path,
        on_collapse: Literal["stop", "record"] = "stop",
        steps_ahead: int = 0,
        enough: int | None = None,
        has_gauges: bool = False,
    ) -> None:
        self.journal: list[str] = []
        self.folder = RunFolder.reopen(path, CONFIG, seed=0)
        self.tracked, self.progress = FakeTracked(self.journal, path), FakeProgress(self.journal)
        self.watch = None if enough is None else FakeWatch(self.journal, path, enough)
        self.gauges = FakeGauges(self.journal) if has_gauges else None
        self.recorder = Recorder(
            self.folder,
            cast(TrackedRun, self.tracked),
            cast(Progress, self.progress),
            StabilityConfig(on_collapse=on_collapse, patience=PATIENCE),
            steps_ahead,
            watch=self.watch,
            gauges=self.gauges,
        )

    def record(self, last: int, first: int = 0) -> list[bool]:
        """Record steps `first` to `last`; from FIRST_BAD on the gradient is not finite."""
        return [self.recorder.record(record(step, bad=step >= FIRST_BAD)) for step in range(first, last + 1)]

    @property
    def steps(self) -> list[tuple[int, dict[str, float]]]:
        """What stands in the folder."""
        found = rows(self.folder.path / METRICS)
        return [(int(row["step"]), {key: row[key] for key in row if key != "step"}) for row in found]

    @property
    def verdict(self) -> dict[str, Any] | None:
        path = self.folder.path / VERDICT
        return json.loads(path.read_text()) if path.exists() else None

    @property
    def log(self) -> list[str]:
        """Without times."""
        return [line.split(" ", 2)[2] for line in (self.folder.path / LOG).read_text().splitlines()]


Opened = Callable[..., Desk]


@pytest.fixture
def desk_of(tmp_path: Path) -> Iterator[Opened]:
    """Opens a desk: (on_collapse, steps_ahead, enough) -> one on the same folder as the ones before."""
    with ExitStack() as stack:

        def opened(
            on_collapse: Literal["stop", "record"] = "stop", steps_ahead: int = 0, enough: int | None = None
        ) -> Desk:
            stack.pop_all().close()
            desk = Desk(tmp_path / "run", on_collapse, steps_ahead, enough)
            stack.enter_context(desk.folder)
            return desk

        yield opened


def rows(metrics: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in metrics.read_text().splitlines()]


def record(step: int, *events: str, bad: bool = False, metrics: Mapping[str, float] | None = None) -> StepRecord:
    measured = {"gradient/nonfinite": 2.0 * bad, **(metrics or {})}
    return StepRecord(step=step, time_ms=0, metrics=measured, events=events)


def test_a_step_goes_to_the_folder_first_then_to_mlflow_then_to_the_screen(desk_of: Opened) -> None:
    desk = desk_of()
    desk.record(1)
    assert desk.journal == ["mlflow", "screen"] * 2
    assert desk.steps == desk.tracked.steps == [(0, {"gradient/nonfinite": 0.0}), (1, {"gradient/nonfinite": 0.0})]
    assert desk.progress.shown == [0, 1]


def test_gauges_show_every_step_last_also_one_that_is_done_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "run", "record", has_gauges=True)
    with desk.folder:
        desk.record(COLLAPSE + 1)
        desk.record(COLLAPSE + 1, first=COLLAPSE + 1)
    assert desk.journal[:6] == ["mlflow", "screen", "gauges"] * 2
    assert desk.gauges is not None
    assert [step for step, _, _ in desk.gauges.shown] == [*range(COLLAPSE + 2), COLLAPSE + 1]
    assert [collapsed for _, _, collapsed in desk.gauges.shown] == [False] * COLLAPSE + [True] * 3
    assert desk.gauges.shown[0][1] == {"gradient/nonfinite": 0.0}


def test_events_of_the_policy_stand_in_the_log(desk_of: Opened) -> None:
    desk = desk_of()
    desk.recorder.record(record(0))
    desk.recorder.record(record(1, "surge", "decay"))
    assert desk.log == ["INFO step 1: surge, decay"]


def test_the_run_is_ended_exactly_at_the_collapse_when_the_experiment_says_stop(desk_of: Opened) -> None:
    desk = desk_of("stop")
    assert desk.record(COLLAPSE - 1) == [True] * COLLAPSE
    assert not desk.recorder.collapsed
    assert desk.record(COLLAPSE, first=COLLAPSE) == [False]
    assert desk.recorder.collapsed


def test_the_run_is_never_ended_when_the_experiment_says_record(desk_of: Opened) -> None:
    desk = desk_of("record")
    assert desk.record(COLLAPSE + 20) == [True] * (COLLAPSE + 21)
    assert not desk.recorder.collapsed


@pytest.mark.parametrize("on_collapse", ["stop", "record"])
def test_a_verdict_goes_to_its_file_to_mlflow_to_the_log_and_to_the_screen(
    desk_of: Opened, on_collapse: Literal["stop", "record"]
) -> None:
    desk = desk_of(on_collapse)
    desk.record(COLLAPSE)
    detail = "the gradient had 2 non-finite elements, 3 steps in a row"
    assert desk.verdict == {"collapsed": True, "step": COLLAPSE, "reason": "nonfinite_gradient", "detail": detail}
    assert desk.tracked.tags == {
        "collapsed": "true",
        "collapse.step": str(COLLAPSE),
        "collapse.reason": "nonfinite_gradient",
    }
    follows = {"stop": "the run stops", "record": "the run goes on"}[on_collapse]
    assert desk.progress.said == [f"collapsed at step {COLLAPSE}: {detail}; {follows}"]
    assert desk.log == [f"INFO collapsed at step {COLLAPSE}: nonfinite_gradient: {detail}"]


def test_the_step_of_the_verdict_and_no_other_has_it_among_its_metrics_everywhere(desk_of: Opened) -> None:
    desk = desk_of("record")
    desk.record(COLLAPSE + 5)
    for steps in (desk.steps, desk.tracked.steps):
        assert {
            step: metrics["stability/collapsed"] for step, metrics in steps if "stability/collapsed" in metrics
        } == {COLLAPSE: 1.0}


def test_a_verdict_is_told_once_however_long_the_run_goes_on(desk_of: Opened) -> None:
    desk = desk_of("record")
    desk.record(COLLAPSE + 20)
    desk.recorder.conclude()
    assert len(desk.log) == len(desk.progress.said) == 1
    assert desk.verdict is not None and desk.verdict["collapsed"]
    assert desk.tracked.tags["collapsed"] == "true"


def test_a_run_that_ends_without_a_collapse_says_so(desk_of: Opened) -> None:
    desk = desk_of()
    desk.record(COLLAPSE - 1)
    assert (desk.verdict, desk.tracked.tags) == (None, {})
    desk.recorder.conclude()
    assert desk.verdict == {"collapsed": False}
    assert desk.tracked.tags == {"collapsed": "false"}
    assert desk.progress.said == []


def test_a_step_done_again_goes_neither_to_the_file_nor_to_mlflow_a_second_time(desk_of: Opened) -> None:
    desk = desk_of()
    for step in range(2):
        desk.recorder.record(record(step, "decay"))
    state, position = desk.recorder.stability_state(), desk.recorder.sync()
    desk.recorder.record(record(2, "decay", metrics={"time/step": 1.0}))
    before, log = desk.steps, desk.log
    desk.recorder.rewind(state, position)
    desk.recorder.record(record(2, "decay", metrics={"time/step": 2.0}))
    desk.recorder.record(record(3))
    assert desk.steps == [*before, (3, {"gradient/nonfinite": 0.0})]
    assert [step for step, _ in desk.tracked.steps] == [0, 1, 2, 3]
    assert desk.log == log  # the event is told once
    assert desk.progress.shown == [0, 1, 2, 2, 3]
    assert (desk.recorder.steps_ahead, desk.progress.said) == (4, [])


def test_a_step_that_comes_out_otherwise_is_replaced_and_told_of_once(desk_of: Opened) -> None:
    desk = desk_of()
    desk.recorder.record(record(0))
    state, position = desk.recorder.stability_state(), desk.recorder.sync()
    for step in (1, 2, 3):
        desk.recorder.record(record(step, metrics={"reward/mean": 0.5}))
    desk.recorder.rewind(state, position)
    for step in (1, 2, 3, 4):
        desk.recorder.record(record(step, "decay", metrics={"reward/mean": 0.25}))
    assert [(step, metrics.get("reward/mean")) for step, metrics in desk.steps] == [
        (0, None),
        *((step, 0.25) for step in (1, 2, 3, 4)),
    ]
    assert [(step, metrics.get("reward/mean")) for step, metrics in desk.tracked.steps] == [
        (0, None),
        *((step, 0.5) for step in (1, 2, 3)),
        (4, 0.25),
    ]
    told = "step 1 was done again and came out otherwise; metrics.jsonl has what it is now, MLflow what it was"
    assert desk.progress.said == [f"warning: {told}"]
    assert desk.log == [f"WARNING {told}", *(f"INFO step {step}: decay" for step in (1, 2, 3, 4))]


def test_a_run_that_goes_on_sends_only_the_steps_that_were_not_recorded_before(desk_of: Opened) -> None:
    desk = desk_of("record")
    desk.record(5)
    before = desk.steps
    again = desk_of("record", steps_ahead=6)
    again.recorder.rewind(again.recorder.stability_state(), 0)
    again.record(7)
    assert [step for step, _ in again.tracked.steps] == [6, 7]
    assert again.steps[:6] == before
    assert again.recorder.steps_ahead == 8


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, COLLAPSE + 2), st.integers(0, COLLAPSE + 2)), max_size=6))
def test_going_back_however_often_changes_nothing_about_when_a_run_collapses(
    tmp_path_factory: pytest.TempPathFactory, ways_back: list[tuple[int, int]]
) -> None:
    desk = Desk(tmp_path_factory.mktemp("run"), "record")
    states: list[tuple[dict[str, Any], int]] = []  # before each step
    with desk.folder:
        step = 0
        for turn, target in [*ways_back, (COLLAPSE + 3, 0)]:  # record up to `turn`, then go back to `target`
            while step <= turn:
                states[step:] = [(desk.recorder.stability_state(), desk.recorder.sync())]
                desk.record(step, first=step)
                step += 1
            if turn == COLLAPSE + 3:
                break
            step = min(target, step)
            if step < len(states):
                desk.recorder.rewind(*states[step])
        assert [step for step, metrics in desk.steps if "stability/collapsed" in metrics] == [COLLAPSE]
        assert [step for step, _ in desk.steps] == [step for step, _ in desk.tracked.steps] == list(range(COLLAPSE + 4))
        assert desk.verdict is not None and desk.verdict["step"] == COLLAPSE
        assert not any(text.startswith("warning") for text in desk.progress.said)


def test_what_ended_a_run_counts_no_more_when_it_is_taken_back_from_there(desk_of: Opened) -> None:
    desk = desk_of("stop")
    state, position = desk.recorder.stability_state(), desk.recorder.sync()
    assert desk.record(COLLAPSE)[-1] is False
    desk.recorder.rewind(state, position)
    assert [desk.recorder.record(record(step)) for step in range(COLLAPSE + 1)] == [True] * (COLLAPSE + 1)
    desk.recorder.conclude()
    assert not desk.recorder.collapsed
    assert desk.verdict == {"collapsed": False}
    assert desk.tracked.tags["collapsed"] == "false"


# Who watches.


def test_who_watches_sees_each_step_after_everyone_else_and_ends_the_run(desk_of: Opened) -> None:
    desk = desk_of(enough=2)
    assert desk.record(2) == [True, True, False]
    assert desk.journal == ["mlflow", "screen", "watch"] * 3
    assert desk.recorder.end == "stopped"
    assert not desk.recorder.collapsed
    assert desk.progress.said == ["stopped after step 2"]
    assert desk.log == ["INFO stopped after step 2"]


@pytest.mark.parametrize("enough", [None, 100])
def test_a_run_that_nobody_stops_is_finished(desk_of: Opened, enough: int | None) -> None:
    desk = desk_of("record", enough=enough)
    assert all(desk.record(COLLAPSE + 2))
    assert desk.recorder.end == "finished"


def test_a_collapse_that_ends_the_run_is_seen_and_remains_a_collapse(desk_of: Opened) -> None:
    desk = desk_of("stop", enough=COLLAPSE)
    assert desk.record(COLLAPSE)[-1] is False
    assert desk.watch is not None and desk.watch.seen[-1] == COLLAPSE
    assert desk.recorder.end == "collapsed"


def test_a_step_done_again_is_not_seen_again_and_ends_the_run_where_it_was_ended(desk_of: Opened) -> None:
    desk = desk_of(enough=3)
    state, position = desk.recorder.stability_state(), desk.recorder.sync()
    desk.record(1)
    desk.recorder.rewind(state, position)
    assert desk.record(3) == [True, True, True, False]
    desk.recorder.rewind(state, position)
    assert desk.record(3) == [True, True, True, False]
    assert desk.watch is not None and desk.watch.seen == [0, 1, 2, 3]
    assert desk.recorder.end == "stopped"


def test_of_a_run_that_goes_on_the_steps_before_are_seen_first(desk_of: Opened) -> None:
    desk_of("record").record(2)
    desk = desk_of("record", steps_ahead=3, enough=4)
    assert desk.recorder.review(desk.folder.metrics.rows())
    assert desk.watch is not None and desk.watch.seen == [0, 1, 2]
    assert desk.recorder.end == "finished"
    assert (desk.verdict, desk.steps) == (None, desk_of("record").steps)
    state = desk.recorder.stability_state()
    assert state == desk_of("record").recorder.stability_state()


def test_a_run_that_would_have_been_ended_earlier_has_its_end_and_its_verdict_at_once(desk_of: Opened) -> None:
    desk_of("record").record(COLLAPSE + 2)
    for enough, collapsed in ((COLLAPSE - 1, False), (COLLAPSE, True)):
        desk = desk_of("record", steps_ahead=COLLAPSE + 3, enough=enough)
        assert not desk.recorder.review(desk.folder.metrics.rows())
        assert desk.watch is not None and desk.watch.seen == list(range(enough + 1))
        assert desk.recorder.end == "stopped"
        assert desk.verdict is not None and desk.verdict["collapsed"] is collapsed
        assert desk.tracked.tags["collapsed"] == str(collapsed).lower()
        assert len(desk.steps) == COLLAPSE + 3


def test_where_nobody_watches_nothing_is_reviewed(desk_of: Opened) -> None:
    desk = desk_of()
    assert desk.recorder.review(iter([record(0)]))
    assert (desk.verdict, desk.recorder.end) == (None, "finished")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no more")])
def test_what_who_watches_raises_is_raised_on_after_the_step_is_recorded(desk_of: Opened, error: BaseException) -> None:
    desk = desk_of(enough=5)

    def see(record: StepRecord) -> bool:
        raise error

    assert desk.watch is not None
    desk.watch.see = see  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        desk.record(0)
    assert len(desk.steps) == len(desk.tracked.steps) == 1
