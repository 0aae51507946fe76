"""Tracking in the background, with real database files, servers that are away, and one that never answers."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow_servers import assert_each_step_is_there_once, card, points, record, runs_of

from orchestrator.records import RunCard, StepRecord
from orchestrator.tracking.courier import Waits
from orchestrator.tracking.store import MlflowStore
from orchestrator.tracking.tracker import PATIENCE, TrackedRun, Tracker, origin_tags

QUICK = Waits(first_s=0.02, longest_s=0.1)


@pytest.fixture(autouse=True)
def own_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tracker sets for its process must not outlive the test."""
    for name in PATIENCE:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables take a second or two to make."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowStore(f"sqlite:///{path}", None)
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path) -> str:
    path = tmp_path / "mlflow.db"
    path.write_bytes(empty_database.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture
def closed() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def the_id(run: TrackedRun) -> str:
    assert run.known_id is not None
    return run.known_id


def test_parent_and_child_reach_mlflow_with_all_they_logged(tmp_path: Path) -> None:
    uri, warnings = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}", list[str]()
    figure = tmp_path / "figure.png"
    figure.write_bytes(b"png")
    tracker = Tracker(uri, tmp_path, warnings.append)
    parent = TrackedRun(tracker, card("comparison", uid="01"))
    child = TrackedRun(tracker, card("decay", uid="02"), parent)
    for step in range(13):
        child.log_step(record(step))
    child.set_tags({"collapsed": "true", "collapse.step": "7"})
    child.log_artifact(figure)
    child.end("KILLED")
    parent.end("FINISHED")
    tracker.close()
    assert warnings == []
    client = MlflowClient(tracking_uri=uri)
    child_run, parent_run = client.get_run(the_id(child)), client.get_run(the_id(parent))
    assert child_run.data.tags["mlflow.parentRunId"] == parent.known_id
    assert (child_run.info.status, parent_run.info.status) == ("KILLED", "FINISHED")
    assert (child_run.info.run_name, child_run.data.tags["arm"]) == ("decay", "decay")
    assert (child_run.data.tags["collapsed"], child_run.data.tags["collapse.step"]) == ("true", "7")
    assert child_run.data.tags["evenkeel.uid"] == "02"
    assert "collapsed" not in parent_run.data.tags
    assert child_run.data.params == {"steps": "90"}
    assert_each_step_is_there_once(uri, the_id(child), 13)
    assert [file.path for file in client.list_artifacts(the_id(child))] == ["figure.png"]


def test_a_search_for_a_parent_finds_exactly_its_children(uri: str, tmp_path: Path) -> None:
    tracker = Tracker(uri, tmp_path, pytest.fail)
    parents = [TrackedRun(tracker, card(f"study-{n}", uid=f"p{n}")) for n in range(2)]
    for number, parent in enumerate((*parents, *parents, None)):
        run = TrackedRun(tracker, card(f"trial-{number}", uid=f"c{number}"), parent)
        for step in range(3):
            run.log_step(record(step))
        run.end("FINISHED")
    tracker.close()
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("e").experiment_id
    for number, parent in enumerate(parents):
        found = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent.known_id}'")
        assert {run.info.run_name for run in found} == {f"trial-{number}", f"trial-{number + 2}"}
        for run in found:
            assert_each_step_is_there_once(uri, run.info.run_id, 3)


def test_a_server_that_is_never_there_is_told_of_twice_and_closing_is_bounded(closed: str) -> None:
    warnings = list[str]()
    tracker = Tracker(closed, None, warnings.append, waits=QUICK, close_timeout_s=0.5)
    run, other = TrackedRun(tracker, card("demo/decay/seed-0")), TrackedRun(tracker, card("demo comparison", uid="0b"))
    for step in range(3000):
        run.log_step(record(step))
    run.set_tags({"collapsed": "false"})
    run.end("FINISHED")
    other.end("FINISHED")
    started = time.monotonic()
    tracker.close()
    assert time.monotonic() - started < 5
    assert (run.known_id, run.num_missing()) == (None, 3000)
    away, missing = warnings
    assert away.startswith(f"MLflow at {closed} is away; steps are kept until it is back: MlflowException: ")
    assert missing == (
        f"MLflow at {closed} lacks 3000 steps of demo/decay/seed-0, the end of demo comparison; "
        "the same command with --resume sends what is missing"
    )
    assert "\n" not in away


def test_a_password_in_the_address_is_not_shown(closed: str) -> None:
    warnings = list[str]()
    uri = closed.replace("//", "//me:secret@")
    tracker = Tracker(uri, None, warnings.append, waits=QUICK, close_timeout_s=0.3)
    TrackedRun(tracker, card("decay")).log_step(record(0))
    tracker.close()
    assert len(warnings) == 2
    assert not any("secret" in warning for warning in warnings)


def test_an_address_that_is_none_is_told_of_at_once_and_nothing_is_kept_for_it() -> None:
    warnings = list[str]()
    tracker = Tracker("no-such-scheme://host", None, warnings.append, waits=QUICK)
    run = TrackedRun(tracker, card("decay"))
    for step in range(30):
        run.log_step(record(step))
    run.set_tags({"a": "b"})
    run.end("FINISHED")
    tracker.close()
    unusable, missing = warnings
    assert unusable.startswith("MLflow at no-such-scheme://host cannot be used: ")
    assert "lacks 30 steps of decay" in missing
    assert not any("\n" in warning for warning in warnings)


def test_a_thread_that_logs_never_waits_for_a_silent_server(silent: str) -> None:
    warnings = list[str]()
    started = time.monotonic()
    tracker = Tracker(silent, None, warnings.append, waits=QUICK, close_timeout_s=0.3)
    run = TrackedRun(tracker, card("decay"))
    for step in range(5000):
        run.log_step(record(step))
        if step % 100 == 0:
            run.set_tags({"step": str(step)})
    run.end("FINISHED")
    assert time.monotonic() - started < 2, "it waited for the server"
    tracker.close()
    assert time.monotonic() - started < 5, "closing waited longer than it was told to"
    assert ["lacks 5000 steps of decay" in warning for warning in warnings] == [True]


def test_a_silent_server_is_given_up_within_the_time_that_is_set_for_a_call(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    warnings = list[str]()
    tracker = Tracker(silent, None, warnings.append, waits=QUICK, close_timeout_s=3)
    TrackedRun(tracker, card("decay")).log_step(record(0))
    tracker.close()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "1", "the user's own value stays"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert "is away" in warnings[0]
    assert "timeout" in warnings[0]


def test_an_interrupt_while_closing_ends_it_at_once(silent: str) -> None:
    warnings = list[str]()
    tracker = Tracker(silent, None, warnings.append)
    TrackedRun(tracker, card("decay")).log_step(record(0))
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        tracker.close()
    assert time.monotonic() - started < 3
    assert ["lacks 1 step of decay" in warning for warning in warnings] == [True]


def test_what_is_refused_is_dropped_with_one_warning_and_stops_nothing(uri: str, tmp_path: Path) -> None:
    warnings = list[str]()
    tracker = Tracker(uri, tmp_path, warnings.append, waits=QUICK)
    run = TrackedRun(tracker, card("decay"))
    run.set_tags({"not allowed ?": "x"})
    run.log_artifact(tmp_path / "no-such-file.png")
    for step in range(40):
        bad = {"not allowed ?": 1.0} if step in (11, 12) else {}
        run.log_step(StepRecord(step=step, time_ms=step, metrics={"scheduler/lr": 1.0, **bad}, events=()))
    run.end("FINISHED")
    tracker.close()
    assert [step for step, _, _ in points(uri, the_id(run), "scheduler/lr")] == [*range(11), *range(13, 40)]
    assert MlflowClient(tracking_uri=uri).get_run(the_id(run)).info.status == "FINISHED"
    tags, artifact, steps, missing = warnings
    assert tags.startswith("not sent to MLflow: tags of decay: MlflowException: ")
    assert artifact.startswith("not sent to MLflow: no-such-file.png of decay: ")
    assert steps.startswith("not sent to MLflow: step 11 of decay: MlflowException: ")
    assert "lacks 2 steps of decay;" in missing


def test_a_run_that_was_deleted_meanwhile_stops_no_other(uri: str, tmp_path: Path) -> None:
    warnings = list[str]()
    tracker = Tracker(uri, tmp_path, warnings.append, waits=QUICK)
    deleted, other = TrackedRun(tracker, card("deleted", uid="0c")), TrackedRun(tracker, card("other", uid="0d"))
    while other.known_id is None:
        time.sleep(0.01)
    MlflowClient(tracking_uri=uri).delete_run(the_id(deleted))
    for step in range(50):
        deleted.log_step(record(step))
        other.log_step(record(step))
    other.end("FINISHED")
    tracker.close()
    assert_each_step_is_there_once(uri, the_id(other), 50)
    assert sum("step" in warning and "of deleted" in warning for warning in warnings[:-1]) == 1
    assert "lacks 50 steps of deleted;" in warnings[-1]


def test_a_run_that_cannot_be_made_is_told_of_once_and_stops_no_other(uri: str, tmp_path: Path) -> None:
    client, warnings = MlflowClient(tracking_uri=uri), list[str]()
    client.delete_experiment(client.create_experiment("gone"))
    tracker = Tracker(uri, tmp_path, warnings.append, waits=QUICK)
    refused = TrackedRun(tracker, RunCard(uid="0e", experiment="gone", name="refused", tags={}, params={"a": 1}))
    child = TrackedRun(tracker, card("child", uid="0f"), refused)
    for step in range(3):
        refused.log_step(record(step))
        child.log_step(record(step))
    refused.backfill(lambda: [record(9)])
    refused.end("FINISHED")
    child.end("FINISHED")
    tracker.close()
    assert refused.known_id is None
    assert_each_step_is_there_once(uri, the_id(child), 3)
    assert warnings[0].startswith("not sent to MLflow: run refused: MlflowException: ")
    assert ["lacks 4 steps of refused;" in warning for warning in warnings[1:]] == [True]


def test_a_run_goes_on_where_it_is_known_and_gets_what_it_lacks_once(uri: str, tmp_path: Path) -> None:
    warnings = list[str]()
    tracker = Tracker(uri, tmp_path, warnings.append)
    first = TrackedRun(tracker, card("decay"))
    for step in range(30):
        first.log_step(record(step))
    first.set_tags({"collapsed": "false"})
    first.end("FAILED")
    tracker.close()

    tracker = Tracker(uri, tmp_path, warnings.append)
    again = TrackedRun(tracker, card("decay", steps=120))
    again.backfill(lambda: (record(step) for step in range(60)))  # the driver died before it could send the last 30
    for step in range(50, 70):  # and does those after its checkpoint again, a little later
        redone = record(step)
        again.log_step(
            StepRecord(step=step, time_ms=redone.time_ms + 10**6 * (step < 60), metrics=redone.metrics, events=())
        )
    while again.known_id is None:
        time.sleep(0.01)
    assert again.known_id == first.known_id
    assert MlflowClient(tracking_uri=uri).get_run(the_id(again)).info.status == "RUNNING"
    again.end("FINISHED")
    tracker.close()
    assert warnings == []
    assert runs_of(uri, "0a") == [first.known_id]
    assert_each_step_is_there_once(uri, the_id(first), 70)
    data = MlflowClient(tracking_uri=uri).get_run(the_id(first)).data
    assert (data.params, data.tags["resumed.steps"]) == ({"steps": "90"}, "120")


def test_a_step_that_is_redone_while_the_first_one_waits_is_sent_once(uri: str, tmp_path: Path) -> None:
    tracker = Tracker(uri, tmp_path, print)
    run = TrackedRun(tracker, card("decay"))
    for step in (*range(8), *range(4, 10)):
        run.log_step(record(step))
    run.end("FINISHED")
    tracker.close()
    assert_each_step_is_there_once(uri, the_id(run), 10)


def test_steps_recorded_earlier_that_cannot_be_read_stop_nothing(uri: str, tmp_path: Path) -> None:
    def rows() -> Iterator[StepRecord]:
        yield record(0)
        raise ValueError("line 2 is torn")

    warnings = list[str]()
    tracker = Tracker(uri, tmp_path, warnings.append)
    run = TrackedRun(tracker, card("decay"))
    run.backfill(rows)
    run.log_step(record(1))
    run.end("FINISHED")
    tracker.close()
    assert warnings == ["not sent to MLflow: earlier steps of decay: ValueError: line 2 is torn"]
    assert_each_step_is_there_once(uri, the_id(run), 2)


def test_a_call_that_fails_after_it_succeeded_doubles_nothing(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful(MlflowStore):
        """Passes every call on, and fails every second time."""

        calls = 0

        def fail(self) -> None:
            self.calls += 1
            if self.calls % 2:
                raise MlflowException("the answer got lost")

        def create_run(self, *args: object) -> str:
            run_id = super().create_run(*args)
            self.fail()
            return run_id

        def log_steps(self, run_id: str, records: Sequence[StepRecord]) -> None:
            super().log_steps(run_id, records)
            self.fail()

        def end_run(self, run_id: str, status: str) -> None:
            super().end_run(run_id, status)
            self.fail()

    monkeypatch.setattr("orchestrator.tracking.store.MlflowStore", Forgetful)
    warnings = list[str]()
    tracker = Tracker(uri, tmp_path, warnings.append, waits=QUICK)
    run = TrackedRun(tracker, card("decay"))
    run.backfill(lambda: map(record, range(1000)))
    for step in range(1000, 1100):
        run.log_step(record(step))
    run.end("FINISHED")
    tracker.close()
    assert runs_of(uri, "0a") == [run.known_id]
    assert_each_step_is_there_once(uri, the_id(run), 1100)
    for away, back in zip(warnings[::2], warnings[1::2], strict=True):
        assert away.endswith("MlflowException: the answer got lost")
        assert back.startswith("MLflow is back: ")
    assert run.num_sent == 1100


DRIVER = """
import sys
from mlflow_servers import card, record
from orchestrator.tracking.tracker import TrackedRun, Tracker

tracker = Tracker(sys.argv[1], None, print)
run = TrackedRun(tracker, card("decay"))
for step in range(100_000):
    run.log_step(record(step))
    if step == 50:
        while run.num_sent < 40:
            pass
        print("at work", flush=True)
"""


def kill_a_driver_at_work(uri: str, after_s: float) -> None:
    path = os.pathsep.join((str(Path(__file__).parents[3]), str(Path(__file__).parents[1])))
    command = [sys.executable, "-c", DRIVER, uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"at work\n"
        time.sleep(after_s)
        driver.kill()


@pytest.mark.parametrize("after_s", [0.03, 0.2])
def test_after_a_driver_was_killed_while_it_sent_the_run_has_each_step_once(
    uri: str, tmp_path: Path, after_s: float
) -> None:
    kill_a_driver_at_work(uri, after_s)
    (run_id,) = runs_of(uri, "0a")
    sent = len(points(uri, run_id))
    assert 40 <= sent < 100_000
    tracker = Tracker(uri, tmp_path, print)
    run = TrackedRun(tracker, card("decay"))
    run.backfill(lambda: map(record, range(sent + 60)))
    run.log_step(record(sent + 60))
    run.end("FINISHED")
    tracker.close()
    assert (run.known_id, run.num_sent) == (run_id, 61)
    assert runs_of(uri, "0a") == [run_id]
    assert_each_step_is_there_once(uri, run_id, sent + 61)


def test_versions_of_what_computes_the_numbers_are_tags() -> None:
    tags = origin_tags()
    assert {"version.vllm", "version.torch", "version.transformers", "version.ray"} <= tags.keys()
    assert all(tags.values())


def test_a_submitted_job_and_the_commit_that_it_came_from_are_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = {"job_submission_id": "raysubmit_1"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {}, "metadata": metadata}))
    monkeypatch.setenv("EVENKEEL_GIT_COMMIT", "0f3a")
    tags = origin_tags()
    assert (tags["ray_submission_id"], tags["git.commit"]) == ("raysubmit_1", "0f3a")
