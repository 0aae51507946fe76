"""A real MLflow server that is killed, hangs and comes back while a run is being tracked."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow_servers import Server, assert_each_step_is_there_once, card, points, record, runs_of

from orchestrator.tracking.courier import Waits
from orchestrator.tracking.tracker import PATIENCE, TrackedRun, Tracker

QUICK = Waits(first_s=0.05, longest_s=0.2)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tracker sets for its process must not outlive the test, nor shall a call that hangs take long."""
    for name in PATIENCE:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("mlflow"))
    try:
        yield server.start()
    finally:
        server.kill()


def log(run: TrackedRun, first: int, end: int) -> None:
    for step in range(first, end):
        run.log_step(record(step))


def wait_until_sent(run: TrackedRun, num_steps: int) -> str:
    give_up = time.monotonic() + 60
    while run.num_sent < num_steps:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert run.known_id is not None
    return run.known_id


def test_a_server_killed_for_many_steps_has_each_once_when_it_is_back(server: Server, tmp_path: Path) -> None:
    figure = tmp_path / "figure.png"
    figure.write_bytes(b"png")
    warnings = list[str]()
    tracker = Tracker(server.uri, None, warnings.append, waits=QUICK)
    run = TrackedRun(tracker, card("decay", uid="a1"))
    log(run, 0, 20)
    run_id = wait_until_sent(run, 20)
    log(run, 20, 100)
    server.kill()  # while it takes steps
    sent = run.num_sent
    log(run, 100, 400)
    run.log_artifact(figure)
    time.sleep(1)
    server.start()
    log(run, 400, 420)
    wait_until_sent(run, 420)
    run.end("FINISHED")
    tracker.close()
    away, back = warnings
    assert away.startswith(f"MLflow at {server.uri} is away; steps are kept until it is back: MlflowException: ")
    assert back.startswith("MLflow is back: ")
    assert 420 - sent >= int(back.split()[3]) >= 300
    assert runs_of(server.uri, "a1") == [run_id]
    assert_each_step_is_there_once(server.uri, run_id, 420)
    client = MlflowClient(tracking_uri=server.uri)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(run_id)] == ["figure.png"]


def test_a_server_that_hangs_for_a_while_has_each_step_once(server: Server) -> None:
    warnings = list[str]()
    tracker = Tracker(server.uri, None, warnings.append, waits=QUICK)
    run = TrackedRun(tracker, card("decay", uid="c1"))
    log(run, 0, 10)
    run_id = wait_until_sent(run, 10)
    server.pause()
    try:
        started = time.monotonic()
        log(run, 10, 200)
        assert time.monotonic() - started < 0.5, "it waited for the server"
        time.sleep(4.5)  # longer than two calls may take: the server has them, and will do what they ask for
    finally:
        server.resume()
    run.end("FINISHED")
    tracker.close()
    assert len(warnings) == 2
    assert runs_of(server.uri, "c1") == [run_id]
    assert_each_step_is_there_once(server.uri, run_id, 200)


def test_a_run_that_is_resumed_while_the_server_is_still_away_gets_what_it_lacked(server: Server) -> None:
    warnings = list[str]()
    tracker = Tracker(server.uri, None, warnings.append, waits=QUICK, close_timeout_s=0.5)
    run = TrackedRun(tracker, card("decay", uid="d1"))
    log(run, 0, 30)
    run_id = wait_until_sent(run, 30)
    server.kill()
    log(run, 30, 60)
    run.end("FINISHED")
    tracker.close()
    assert "lacks 30 steps of decay; the same command with --resume sends" in warnings.pop()
    warnings.clear()

    tracker = Tracker(server.uri, None, warnings.append, waits=QUICK)
    parent = TrackedRun(tracker, card("comparison", uid="d2"))
    again = TrackedRun(tracker, card("decay", uid="d1"), parent)
    again.backfill(lambda: map(record, range(60)))
    log(again, 60, 70)
    again.end("FINISHED")
    assert again.num_missing() == 70
    server.launch()
    tracker.close()  # waits for it
    assert [warning.split()[-2:] for warning in warnings[1:]] == [["steps", "sent"]]
    assert (again.known_id, again.num_sent, again.num_missing()) == (run_id, 40, 0)
    assert runs_of(server.uri, "d1") == [run_id]
    assert_each_step_is_there_once(server.uri, run_id, 70)
    tags = MlflowClient(tracking_uri=server.uri).get_run(run_id).data.tags
    assert tags["mlflow.parentRunId"] == parent.known_id


def test_a_long_history_is_asked_for_page_by_page(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow.tracking._tracking_service.client.GET_METRIC_HISTORY_MAX_RESULTS", 7)
    for _ in range(2):
        tracker = Tracker(server.uri, None, print, waits=QUICK)
        run = TrackedRun(tracker, card("decay", uid="e1"))
        run.backfill(lambda: map(record, range(40)))
        tracker.close()
    assert run.num_sent == 0
    (run_id,) = runs_of(server.uri, "e1")
    assert len(points(server.uri, run_id)) == 40
