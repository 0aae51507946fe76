"""Runs of stand-ins that take turns with workers, or run side by side, and are watched."""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from disturbed_run import RUN, differences, rows
from mlflow import MlflowClient
from rich.console import Console
from stand_in_run import StandInExperiment, stand_in_spec

from cluster.config import ClusterConfig
from cluster.session import Session, session
from orchestrator.crew.crews import Crews
from orchestrator.records import StepRecord
from orchestrator.run.status import RunStatus
from orchestrator.run_spec import RunSpec
from orchestrator.tracking.tracker import Tracker

pytestmark = pytest.mark.slow

STEPS = 14  # with a checkpoint every 5


class Spectator:
    """Notes what it sees, and does what it is told to after a step."""

    def __init__(self, enough: int | None = None, error: tuple[int, BaseException] | None = None) -> None:
        self.enough = enough
        self.error = error
        self.seen: list[int] = []
        self.threads: set[int] = set()

    def see(self, record: StepRecord) -> bool:
        self.seen.append(record.step)
        self.threads.add(threading.get_ident())
        if self.error is not None and record.step == self.error[0]:
            raise self.error[1]
        return record.step != self.enough

    def closing_tags(self) -> dict[str, str]:
        return {"seen": str(len(self.seen))}


@pytest.fixture(scope="module")
def ray_session() -> Iterator[Session]:
    with session(ClusterConfig()) as opened:
        yield opened


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, ray_session: Session) -> Path:
    """A run that had its workers to itself."""
    folder = tmp_path_factory.mktemp("alone")
    with Crews(ray_session) as crews:
        run([stand_in_spec(folder, STEPS)], crews, folder)
    return folder


def run(specs: Sequence[RunSpec], crews: Crews, folder: Path) -> None:
    """Runs, each in a thread of its own when there are several; MLflow's database is below the folder."""
    tracker = Tracker(f"sqlite:///{folder / 'mlflow.db'}", folder, warn=print)
    try:
        with open(os.devnull, "w") as nowhere, ThreadPoolExecutor(len(specs)) as pool:
            console = Console(file=nowhere, force_terminal=True)
            experiments = [StandInExperiment(spec, crews, console) for spec in specs]
            if len(experiments) == 1:
                experiments[0].run(tracker)
            for done in [pool.submit(one.run, tracker) for one in experiments] if len(experiments) > 1 else []:
                done.result(timeout=120)
    finally:
        tracker.close()


def status_of(folder: Path) -> RunStatus:
    status = RunStatus.read(folder / RUN)
    assert status is not None
    return status


def test_runs_on_the_workers_of_others_equal_one_on_its_own_also_from_a_checkpoint(
    alone: Path, tmp_path: Path, ray_session: Session
) -> None:
    cut_off, first, second = tmp_path / "cut-off", tmp_path / "first", tmp_path / "second"
    with Crews(ray_session, warm=True) as crews:
        watch = Spectator(error=(7, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run([replace(stand_in_spec(cut_off, STEPS), watch=watch)], crews, tmp_path)
        assert status_of(cut_off).status == "interrupted"
        run([stand_in_spec(first, STEPS)], crews, tmp_path)
        watch = Spectator()
        run([replace(stand_in_spec(cut_off, STEPS, resume=True), watch=watch)], crews, tmp_path)
        run([stand_in_spec(second, STEPS)], crews, tmp_path)
    assert watch.seen == list(range(STEPS))
    for folder in (cut_off, first, second):
        assert differences(rows(alone), rows(folder)) == []
        assert status_of(folder).status == "finished"
    logs = [(folder / RUN / "log.txt").read_text() for folder in (cut_off, first, second)]
    assert ["earlier run" in log for log in logs] == [True, False, True]
    assert "goes on with step 5" in logs[0]


def test_runs_side_by_side_on_one_console_are_those_of_runs_alone(
    alone: Path, tmp_path: Path, ray_session: Session
) -> None:
    folders = [tmp_path / name for name in "ab"]
    watches = [Spectator(enough=8 if folder.name == "b" else None) for folder in folders]
    specs = [
        replace(stand_in_spec(folder, STEPS), watch=watch, quiet=True, arm=folder.name, tags={"trial.number": "7"})
        for folder, watch in zip(folders, watches, strict=True)
    ]
    with Crews(ray_session, warm=True) as crews:
        run(specs, crews, tmp_path)
    assert len(set.union(*(watch.threads for watch in watches))) == 2
    for folder, watch in zip(folders, watches, strict=True):
        expected = rows(alone)[:9] if folder.name == "b" else rows(alone)
        assert differences(expected, rows(folder)) == []
        assert watch.seen == [row["step"] for row in expected]
        assert status_of(folder).status == ("stopped" if folder.name == "b" else "finished")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    found = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert {one.data.tags["arm"]: (one.data.tags["seen"], one.info.status) for one in found} == {
        "a": ("14", "FINISHED"),
        "b": ("9", "FINISHED"),
    }
    assert {one.data.tags["trial.number"] for one in found} == {"7"}

    again = Spectator(enough=8)
    with Crews(ray_session) as crews:
        run([replace(stand_in_spec(folders[1], STEPS, resume=True), watch=again)], crews, tmp_path)
    assert again.seen == list(range(9))
    assert len(rows(folders[1])) == 9
    assert status_of(folders[1]).status == "stopped"
