"""Spans of driver and actors, and the Chrome trace made of them."""

import json
import pickle
from pathlib import Path

import pytest

from orchestrator.bench.trace import (
    LOG,
    Span,
    TracedLearner,
    TracedRolloutWorker,
    TracedScheduler,
    chrome_trace,
    noting,
    write_trace,
)
from orchestrator.config_errors import ConfigError

GENERATED = Span(name="generate", started_s=100.5, ended_s=101.0, pid=11, thread=1)
STEP = Span(name="step", started_s=100.0, ended_s=102.0, pid=10, thread=1)


class Base:
    def work(self, number: int) -> int:
        return 2 * number


def test_noted_methods_do_what_they_did_and_leave_a_span() -> None:
    @noting("work")
    class Noted(Base):
        pass

    LOG.take()
    assert Noted().work(21) == 42
    (span,) = LOG.take()
    assert span.name == "work" and span.ended_s >= span.started_s
    assert LOG.take() == []
    assert Base().work(1) == 2 and LOG.take() == []


def test_the_traced_classes_note_methods_that_there_are_and_leave_the_plain_ones_alone() -> None:
    for traced in (TracedLearner, TracedRolloutWorker, TracedScheduler):
        (plain,) = traced.__bases__
        noted = [name for name, value in vars(traced).items() if hasattr(value, "__wrapped__")]
        assert noted and all(not hasattr(vars(plain)[name], "__wrapped__") for name in noted)


def test_noted_methods_are_found_again_by_name_where_an_actor_runs() -> None:
    for method in (TracedLearner.compute_gradients, TracedRolloutWorker.generate, TracedScheduler.decide):
        assert pickle.loads(pickle.dumps(method)) is method


def test_a_trace_begins_at_zero_and_names_its_processes() -> None:
    events = chrome_trace({"driver": [STEP], "rollout-0": [GENERATED], "learner-0": []})["traceEvents"]
    named = {event["pid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert named == {10: "driver", 11: "rollout-0"}
    spans = {event["name"]: (event["ts"], event["dur"]) for event in events if event["ph"] == "X"}
    assert spans == {"step": (0.0, 2e6), "generate": (500_000.0, 500_000.0)}


def test_a_trace_is_written_as_json(tmp_path: Path) -> None:
    write_trace(tmp_path / "new" / "step.json", {"driver": [STEP]})
    assert json.loads((tmp_path / "new" / "step.json").read_text())["displayTimeUnit"] == "ms"
    with pytest.raises(ConfigError, match="--trace"):
        write_trace(tmp_path / "new", {"driver": [STEP]})
