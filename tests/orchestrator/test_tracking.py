"""Tracking in the background: a real database file, a server that is away, and one that never answers."""

import socket
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator import tracking
from orchestrator.records import RunCard, StepRecord
from orchestrator.tracking import STEPS_PER_BATCH, TrackedRun, Tracker, version_tags


def card(name: str) -> RunCard:
    return RunCard(experiment="e", name=name, tags={"arm": name}, params={"rollout": {"workers": 2}})


def record(step: int) -> StepRecord:
    return StepRecord(step=step, time_ms=1_764_000_000_000 + step, metrics={"reward/mean": step / 2}, events=())


def test_parent_and_child_reach_mlflow_with_all_they_logged(tmp_path: Path) -> None:
    uri, warnings = f"sqlite:///{tmp_path / 'mlflow.db'}", list[str]()
    figure = tmp_path / "figure.png"
    figure.write_bytes(b"png")
    tracker = Tracker(uri, tmp_path, warnings.append)
    parent = TrackedRun(tracker, card("comparison"))
    child = TrackedRun(tracker, card("decay"), parent)
    for step in range(STEPS_PER_BATCH + 3):
        child.log_step(record(step))
    child.set_tags({"collapsed": "true", "collapse.step": "7"})
    child.log_artifact(figure)
    child.end("KILLED")
    parent.end("FINISHED")
    tracker.close()
    assert warnings == []
    client = MlflowClient(tracking_uri=uri)
    child_run, parent_run = client.get_run(child.run_id), client.get_run(parent.run_id)
    assert child_run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert (child_run.info.status, parent_run.info.status) == ("KILLED", "FINISHED")
    assert (child_run.info.run_name, child_run.data.tags["arm"]) == ("decay", "decay")
    assert (child_run.data.tags["collapsed"], child_run.data.tags["collapse.step"]) == ("true", "7")
    assert "collapsed" not in parent_run.data.tags
    assert child_run.data.params == {"rollout.workers": "2"}
    history = client.get_metric_history(child.run_id, "reward/mean")
    assert [(point.step, point.value) for point in history] == [(step, step / 2) for step in range(STEPS_PER_BATCH + 3)]
    assert [file.path for file in client.list_artifacts(child.run_id)] == ["figure.png"]


def test_a_server_that_is_away_only_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
    warnings = list[str]()
    tracker = Tracker(uri, None, warnings.append)
    run = TrackedRun(tracker, card("decay"))
    run.log_step(record(0))
    run.end("FINISHED")
    tracker.close()
    assert warnings
    assert all("MLflow" in warning and "\n" not in warning for warning in warnings)


def test_an_address_that_is_none_only_warns() -> None:
    warnings = list[str]()
    tracker = Tracker("no-such-scheme://host", None, warnings.append)
    run = TrackedRun(tracker, card("decay"))
    run.log_step(record(0))
    run.end("FINISHED")
    tracker.close()
    assert warnings
    assert all("\n" not in warning for warning in warnings)


def test_closing_waits_for_a_silent_server_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "CLOSE_TIMEOUT_S", 0.3)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warnings = list[str]()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        tracker = Tracker(f"http://127.0.0.1:{silent.getsockname()[1]}", None, warnings.append)
        started = time.monotonic()
        TrackedRun(tracker, card("decay")).end("FINISHED")
        assert time.monotonic() - started < 2, "handing in a job must not wait for the server"
        tracker.close()
        assert 0.3 <= time.monotonic() - started < 5
    assert any("did not take everything within 0.3 s" in warning for warning in warnings)


def test_jobs_are_done_in_order_by_one_thread_and_a_failed_one_stops_none(tmp_path: Path) -> None:
    warnings, done = list[str](), list[tuple[int, int]]()
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path, warnings.append)

    def job(number: int) -> None:
        done.append((number, threading.get_ident()))
        if number == 1:
            raise RuntimeError("first line\nsecond line")

    for number in range(4):
        tracker.submit(lambda _, number=number: job(number))
    tracker.close()
    assert [number for number, _ in done] == [0, 1, 2, 3]
    assert {thread for _, thread in done}.isdisjoint({threading.get_ident()})
    assert warnings == ["not sent to MLflow: RuntimeError: first line"]


def test_the_id_of_a_run_that_was_never_made_is_an_error() -> None:
    class Deaf(Tracker):
        def __init__(self) -> None:
            pass

        def submit(self, job: object) -> None:
            pass

    with pytest.raises(ConnectionError, match="could not be created"):
        _ = TrackedRun(Deaf(), card("decay")).run_id


def test_versions_of_what_computes_the_numbers_are_tags() -> None:
    tags = version_tags()
    assert {"version.vllm", "version.torch", "version.transformers", "version.ray"} <= tags.keys()
    assert all(tags.values())
