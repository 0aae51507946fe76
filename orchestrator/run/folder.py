"""The folder of one run: its resolved config, its metrics as JSON lines, its log, how it stands."""

import errno
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator import yaml_files
from orchestrator.config import ExperimentConfig
from orchestrator.run.lock import run_lock
from orchestrator.run.metrics_file import Entry, MetricsFile
from orchestrator.run.status import STATUS, End, RunStatus

CONFIG, METRICS, LOG, VERDICT = "config.yaml", "metrics.jsonl", "log.txt", "verdict.json"
ROLLOUTS, MODEL, CHECKPOINTS = "rollouts", "model", "checkpoints"  # folders that others fill


class RunFolderFull(RuntimeError):
    """A file of the run cannot be written. What stands in the folder is whole."""

    def __init__(self, path: Path, error: OSError) -> None:
        cure = "make room" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "put this right"
        super().__init__(f"{path} cannot be written: {error.strerror}; {cure} and go on with --resume")


def run_path(root: Path, name: str, arm: str, seed: int) -> Path:
    """Where a run lives: `<root>/<name>/<arm>/seed-<n>`."""
    return root / name / arm / f"seed-{seed}"


def stored_config(config: ExperimentConfig, seed: int) -> dict[str, Any]:
    """The config of one run alone: its arm merged in, its seed the only one."""
    return {**config.model_dump(mode="json", exclude={"arms"}), "seeds": [seed]}


class RunFolder:
    """A run's files, held by this process alone until the end of the with-block.

    with RunFolder.create(path, config, seed=0) as folder:
        folder.write_step(0, {"reward/mean": 0.5})
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        """Take an existing folder over; it is opened by the with-block.

        Args:
            path: of the folder.
            config: `stored_config` of the run.
        """
        self.path = path
        self.log = logging.getLogger(f"evenkeel.{path}")
        self.metrics: MetricsFile
        self.status: RunStatus
        self.end: End = "finished"  # what the status says of a with-block that no exception ends
        self.config = config
        self.is_over = False  # before the with-block, which then leaves status and config alone
        self._last_step = -1
        self._stack = ExitStack()

    @classmethod
    def create(cls, path: Path, config: ExperimentConfig, seed: int) -> "RunFolder":
        """A fresh folder at `path`; an earlier run that lives there is moved aside, never overwritten.

        Raises:
            RunInUse: a process is at work in the one that is there.
        """
        aside = move_aside(path)
        folder = cls.reopen(path, config, seed)
        if aside:
            with suppress(OSError):
                (path / LOG).write_text(f"the earlier run was moved to {aside}\n", encoding="utf-8")
        return folder

    @classmethod
    def reopen(cls, path: Path, config: ExperimentConfig, seed: int) -> "RunFolder":
        """The folder of a run that goes on, which may be there in part or not at all.

        Raises:
            RunFolderFull: it cannot be made.
        """
        with _refusals_of(path):
            path.mkdir(parents=True, exist_ok=True)
        return cls(path, stored_config(config, seed))

    def write_step(self, step: int, metrics: dict[str, float]) -> Entry:
        """Record a step's metrics; ValueError when one is not finite.

        Raises:
            RunFolderFull: the disk refuses.
        """
        with _refusals_of(self.metrics.path):
            entry = self.metrics.write(step, metrics)
        self._last_step = max(step, self._last_step)
        return entry

    def sync(self) -> int:
        """Make sure that the metrics are on the disk; returns how many bytes of them there are. Errors as above."""
        with _refusals_of(self.metrics.path):  # some file systems find only now that they are full
            return self.metrics.sync()

    def note_mlflow_run(self, run_id: str | None) -> None:
        """Which run this is at MLflow, if that is known."""
        self.status = replace(self.status, mlflow_run_id=run_id or self.status.mlflow_run_id)

    def write_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Whether the run collapsed, when and why; later verdicts replace earlier ones. Errors as `write_step`."""
        self._write(VERDICT, json.dumps(verdict) + "\n")

    def read_verdict(self) -> dict[str, Any]:
        """The verdict that was written last; without any, that of a run that has not collapsed."""
        try:
            found = json.loads((self.path / VERDICT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        return found if isinstance(found, dict) and "collapsed" in found else {"collapsed": False}

    def _write(self, name: str, text: str) -> None:
        path, partial = self.path / name, self.path / f".{name}.partial"
        with _refusals_of(path), partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(run_lock(self.path))
            with _refusals_of(self.path):
                self._open(stack)
            earlier = RunStatus.read(self.path)
            self.is_over = earlier is not None and _has_ended(earlier, self._last_step, self.config["steps"])
            self.status = RunStatus.begin(earlier)
            if not self.is_over:
                self._write(CONFIG, yaml_files.dump(dict(self.config)))
                self._write_status(self.status)
            self._stack = stack.pop_all()
        return self

    def _open(self, stack: ExitStack) -> None:
        """The log and the metrics file; `stack` closes them."""
        handler = _LogHandler(self.path / LOG, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        self.log.addHandler(handler)
        stack.callback(handler.close)
        stack.callback(self.log.removeHandler, handler)
        self.metrics = stack.enter_context(MetricsFile(self.path / METRICS))
        self._last_step = self.metrics.last_step()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self.log.error("the run ended early", exc_info=error)
        with self._stack, suppress(RunFolderFull):
            if not self.is_over:
                self._write_status(self._ended(error))

    def _write_status(self, status: RunStatus) -> None:
        with _refusals_of(self.path / STATUS):
            status.write(self.path)

    def _ended(self, error: BaseException | None) -> RunStatus:
        status = replace(self.status, last_step=self._last_step if self._last_step >= 0 else None)
        if error is None:
            return status.end(self.end)
        if isinstance(error, KeyboardInterrupt):
            return status.end("interrupted")
        return status.end("failed", f"{type(error).__name__}: {error}")


class _LogHandler(logging.FileHandler):
    """On a full disk the log has a gap, and that is all."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the record."""

    def close(self) -> None:
        """Close the file, and lose what the disk does not take any more."""
        with suppress(OSError):
            super().close()


@contextmanager
def _refusals_of(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a RunFolderFull."""
    try:
        yield
    except OSError as error:
        raise RunFolderFull(path, error) from error


def _has_ended(status: RunStatus, last_step: int, steps: int) -> bool:
    """Whether a run has come to its end, and would not go on with that many steps."""
    return status.status in {"collapsed", "stopped"} or (status.status == "finished" and last_step >= steps - 1)


def move_aside(path: Path) -> Path | None:
    """Rename what is at `path` to the first free `<path>.old-<n>`; None when nothing is there.

    Raises:
        RunInUse: a process is at work in it.
    """
    if not path.exists():
        return None
    with run_lock(path):
        number = 1
        while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
            number += 1
        path.rename(aside)
    return aside
