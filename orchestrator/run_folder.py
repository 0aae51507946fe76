"""The folder of one run: its resolved config, its metrics as JSON lines, its log."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator import yaml_files
from orchestrator.config import ExperimentConfig

CONFIG, METRICS, LOG, VERDICT = "config.yaml", "metrics.jsonl", "log.txt", "verdict.json"
ROLLOUTS, MODEL = "rollouts", "model"  # folders that others fill


def run_path(root: Path, name: str, arm: str, seed: int) -> Path:
    """Where a run lives: `<root>/<name>/<arm>/seed-<n>`."""
    return root / name / arm / f"seed-{seed}"


class RunFolder:
    """Writes a run's files; the metrics reach the disk's file system line by line, as the steps end.

    with RunFolder.create(path, config, seed=0) as folder:
        folder.write_step(0, {"reward/mean": 0.5})
    """

    def __init__(self, path: Path) -> None:
        """Open the files of an existing folder for appending."""
        self.path = path
        self.log = logging.getLogger(f"evenkeel.{path}")
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        self._handler = logging.FileHandler(path / LOG, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.log.addHandler(self._handler)
        _drop_cut_off_line(path / METRICS)
        self._metrics = (path / METRICS).open("a", encoding="utf-8")

    @classmethod
    def create(cls, path: Path, config: ExperimentConfig, seed: int) -> "RunFolder":
        """A fresh folder at `path`; an earlier run that lives there is moved aside, never overwritten.

        The config stored in it is that of this run alone: its arm merged in, its seed the only one.
        """
        aside = move_aside(path)
        path.mkdir(parents=True)
        (path / CONFIG).write_text(
            yaml_files.dump({**config.model_dump(mode="json", exclude={"arms"}), "seeds": [seed]}), encoding="utf-8"
        )
        folder = cls(path)
        if aside:
            folder.log.info("the earlier run was moved to %s", aside)
        return folder

    def write_step(self, step: int, metrics: dict[str, float]) -> None:
        """Append one step's line; ValueError when a metric is not finite: JSON knows no such numbers."""
        self._metrics.write(json.dumps({"step": step, **metrics}, allow_nan=False) + "\n")
        self._metrics.flush()

    def write_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Whether the run collapsed, when and why; later verdicts replace earlier ones."""
        (self.path / VERDICT).write_text(json.dumps(verdict) + "\n", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self.log.error("the run ended early", exc_info=error)
        self._metrics.close()
        self.log.removeHandler(self._handler)
        self._handler.close()


def _drop_cut_off_line(path: Path) -> None:
    """Cut a file back to its last whole line, so that what is appended does not continue a torn one."""
    if path.exists():
        whole = path.read_bytes().rpartition(b"\n")
        os.truncate(path, len(whole[0] + whole[1]))


def move_aside(path: Path) -> Path | None:
    """Rename what is at `path` to the first free `<path>.old-<n>`; None when nothing is there."""
    if not path.exists():
        return None
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    path.rename(aside)
    return aside
