"""A real MLflow server that can be killed and started again, and what a run looks like in it afterwards."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from mlflow import MlflowClient

from orchestrator.records import RunCard, StepRecord

Point = tuple[int, float, int]  # step, value, time


class Server:
    """`mlflow server` on a loopback port, with its store in a folder: both stay the same when it is started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and wait until it answers."""
        self.launch()
        give_up = time.monotonic() + 90
        while not self._answers():
            assert time.monotonic() < give_up, (self.folder / "server.log").read_text()
            time.sleep(0.05)
        return self

    def launch(self) -> None:
        """Start it and wait for nothing."""
        options = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--workers": "1",
            "--backend-store-uri": f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination": str(self.folder / "artifacts"),
        }
        command = [
            str(Path(sys.executable).with_name("mlflow")),
            "server",
            *(x for pair in options.items() for x in pair),
        ]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env=environment, start_new_session=True
            )

    def kill(self) -> None:
        """SIGKILL, to all its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It accepts connections, and answers nothing."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def card(name: str, uid: str = "0a", steps: int = 90) -> RunCard:
    return RunCard(uid=uid, experiment="e", name=name, tags={"arm": name}, params={"steps": steps})


def record(step: int) -> StepRecord:
    metrics = {"scheduler/lr": 1e-6 * step, "reward/mean": step / 2, "eval/sums/avg@8": step / 4}
    return StepRecord(step=step, time_ms=1_764_000_000_000 + step, metrics=metrics, events=())


def points(uri: str, run_id: str, key: str = "reward/mean") -> list[Point]:
    """The history of a metric as MLflow has it, in its order."""
    history = MlflowClient(tracking_uri=uri).get_metric_history(run_id, key)
    return [(point.step, point.value, point.timestamp) for point in history]


def runs_of(uri: str, uid: str) -> list[str]:
    """The ids of all runs with that uid, in any state."""
    client = MlflowClient(tracking_uri=uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`evenkeel.uid` = '{uid}'")
    return [run.info.run_id for run in found]


def assert_each_step_is_there_once(uri: str, run_id: str, num_steps: int) -> None:
    """Every metric of every step, once, in order, with the values and times of `record`."""
    for key in record(0).metrics:
        expected = [(step, record(step).metrics[key], record(step).time_ms) for step in range(num_steps)]
        assert points(uri, run_id, key.replace("@", "_at_")) == expected
