"""`evenkeel ui` shows recorded runs in MLflow's own interface, and ends without a trace."""

import json
import math
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from browser import Page, open_page
from mlflow import MlflowClient
from real_run import command, environment, evenkeel

from orchestrator.records import RunCard, StepRecord
from orchestrator.tracking.tracker import TrackedRun, Tracker

TRIALS = ["trial-000", "trial-001", "trial-002"]
STEPS = 12
GONE_WITHIN_S = 15
PLOTS = """[...document.querySelectorAll(".js-plotly-plot")]"""
CURVES = PLOTS + ".flatMap(plot => (plot.data || []).map(curve => [curve.name, curve.y]))"
EXPANDER = """document.querySelector('.ag-row [data-component-id*="runnamecellrenderer"]')"""

pytestmark = pytest.mark.slow


def value(trial: int, step: int) -> float:
    return math.sin(step / 5 + trial)


def fill(runs: Path) -> None:
    """A study with its trials, as `sweep` records them."""
    runs.mkdir()
    tracker = Tracker(f"sqlite:///{runs / 'mlflow.db'}", runs, warn=pytest.fail)
    study = TrackedRun(tracker, card("hill"))
    for trial, name in enumerate(TRIALS):
        run = TrackedRun(tracker, card(name), study)
        for step in range(STEPS):
            metrics = {"scheduler/lr": 1e-4 * (trial + 1), "reward/mean": value(trial, step)}
            run.log_step(StepRecord(step=step, time_ms=1_764_000_000_000 + step, metrics=metrics, events=()))
        run.end("FINISHED")
    (runs / "figure.png").write_bytes(b"a picture")
    study.log_artifact(runs / "figure.png")
    study.end("FINISHED")
    tracker.close()


def card(name: str) -> RunCard:
    return RunCard(uid=name, experiment="hill", name=name, tags={"arm": name}, params={"lr": 1e-4})


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    url: str
    port: int
    process: "subprocess.Popen[str]"
    experiment: str
    ids: dict[str, str]  # of the runs, by name

    def opened(self, page: str, **query: object) -> str:
        """The address of one of its pages."""
        asked = "&".join(f"{key}={quote(json.dumps(value))}" for key, value in query.items())
        return f"{self.url}/#/{page}?{asked}"


@contextmanager
def started(runs: Path) -> Iterator[Interface]:
    """The command in a process of its own, from when it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    asked = command("ui", "--runs", str(runs), "--port", str(port))
    process = subprocess.Popen(asked, cwd=runs, env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        url = f"http://127.0.0.1:{port}"
        assert said == f"MLflow shows the runs at {url} (Ctrl-C ends it)\n"
        client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("hill").experiment_id
        ids = {run.info.run_name: run.info.run_id for run in client.search_runs([experiment])}
        yield Interface(url=url, port=port, process=process, experiment=experiment, ids=ids)
    finally:
        process.terminate()
        process.communicate(timeout=GONE_WITHIN_S)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ui") / "runs"
    fill(folder)
    return folder


@pytest.fixture(scope="module")
def interface(runs: Path) -> Iterator[Interface]:
    with started(runs) as interface:
        yield interface


def assert_asks_only(page: Page, interface: Interface) -> None:
    assert [url for url in page.requests if not url.startswith(interface.url)] == []


def test_the_page_of_the_experiment_lists_the_study_and_its_trials_below(interface: Interface) -> None:
    with open_page(interface.opened(f"experiments/{interface.experiment}/runs")) as page:
        page.wait_for_text("hill", "4 matching runs")
        assert not any(name in page.text() for name in TRIALS)
        page.wait_for(EXPANDER + " !== null")
        page.evaluate(EXPANDER + ".click()")
        page.wait_for_text("hill", *TRIALS)
        assert_asks_only(page, interface)


def test_the_trials_are_compared(interface: Interface) -> None:
    trials = [interface.ids[name] for name in TRIALS]
    with open_page(interface.opened("compare-runs", runs=trials, experiments=[interface.experiment])) as page:
        page.wait_for_text("Comparing 3 Runs from 1 Experiment", "reward/mean", *TRIALS)
        assert_asks_only(page, interface)


def test_their_curves_are_whole(interface: Interface) -> None:
    trials, experiments = [interface.ids[name] for name in TRIALS], [interface.experiment]
    asked = {"runs": trials, "metric": "reward/mean", "experiments": experiments, "plot_metric_keys": ["reward/mean"]}
    with open_page(interface.opened("metric", **asked)) as page:
        page.wait_for_text(*(f"{name} (reward/mean)" for name in TRIALS))
        page.wait_for(f"{CURVES}.filter(([_, values]) => values.length === {STEPS}).length >= {len(TRIALS)}")
        drawn = dict(page.evaluate(CURVES))
        assert drawn == {name: [value(n, step) for step in range(STEPS)] for n, name in enumerate(TRIALS)}


def test_the_files_of_a_run_are_there(interface: Interface) -> None:
    address = f"{interface.url}/get-artifact?path=figure.png&run_uuid={interface.ids['hill']}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert answer.read() == b"a picture"


def test_it_listens_at_loopback_alone_and_ends_with_all_its_processes(runs: Path) -> None:
    with started(runs) as interface:
        below = psutil.Process(interface.process.pid).children(recursive=True)
        open_at = [x.laddr for p in below for x in p.net_connections("inet") if x.status == psutil.CONN_LISTEN]
        assert {tuple(address) for address in open_at} == {("127.0.0.1", interface.port)}
        refused = evenkeel("ui", "--runs", str(runs), "--port", str(interface.port), cwd=runs)
        taken = f"evenkeel: --port: got {interface.port}, expected a port that is free at 127.0.0.1"
        assert (refused.returncode, refused.stderr) == (2, f"{taken} (Address already in use)\n")
        interface.process.send_signal(signal.SIGINT)
        assert interface.process.wait(GONE_WITHIN_S) == 0
        _, left = psutil.wait_procs(below, timeout=1)
        assert left == []
    assert sorted(path.name for path in runs.iterdir()) == ["figure.png", "mlartifacts", "mlflow.db"]
