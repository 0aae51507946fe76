"""Runs whose metrics do not depend on the rate: scheduler, recorder, folder and checkpoints are real, the rest is not.

What stands for the weights is the list of all rates so far.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from actors.scheduler import Scheduler
from orchestrator.checkpoints.checkpoint import LEARNER
from orchestrator.checkpoints.manifest import saved_file
from orchestrator.checkpoints.place import Place, place_of, store_at
from orchestrator.checkpoints.state import RunState
from orchestrator.config import ExperimentConfig
from orchestrator.experiment_file import merge
from orchestrator.records import StepRecord
from orchestrator.run.checkpoints import RunCheckpoints
from orchestrator.run.folder import METRICS, MODEL, ROLLOUTS, VERDICT, RunFolder
from orchestrator.run.log import RunLog
from orchestrator.run.progress import Progress
from orchestrator.run.recorder import Recorder
from orchestrator.stability import StabilityMonitor
from orchestrator.tracking.tracker import TrackedRun
from sweeps.fork.fork import Fork
from sweeps.fork.making import make_fork
from sweeps.fork.plan import best_source

Metrics = Mapping[str, float]
STEPS, EVERY = 20, 6
TREE: dict[str, Any] = {
    "name": "thresholds",
    "model": {"path": "embedded"},
    "task": {"kind": "arithmetic"},
    "rollout": {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": 8},
    "scheduler": {"kind": "constant", "lr": 1e-6},
    "shadow": {"beside": {"kind": "length_triggered", "baseline_steps": 2, "ratio": 1.1, "patience": 1}},
    "steps": STEPS,
    "checkpoint": {"every": EVERY, "keep": 100},
    "stability": {"patience": 2, "on_collapse": "record"},
    "record_rollouts": {"every": 5},
}
# Rises at step 9, and again at 14.
TRACE: list[Metrics] = [
    {"response/length_mean": 10.0 if step < 9 else 30.0 if step < 14 else 70.0, "reward/mean": step / 7}
    for step in range(STEPS)
]


class _Tracked:
    """MLflow, away."""

    def log_step(self, record: StepRecord) -> None:
        pass

    def set_tags(self, tags: Mapping[str, str]) -> None:
        pass


class _Run:
    def __init__(self, folder: RunFolder, config: ExperimentConfig) -> None:
        self.folder, self.config = folder, config
        progress = Progress(Console(file=StringIO()), "run", config.steps, quiet=True)
        shadows = {name: policy.build(config.steps) for name, policy in config.shadow.items()}
        self.scheduler = Scheduler(config.scheduler.build(config.steps), config.learner, shadows)
        ahead = len(list(folder.metrics.rows()))
        self.recorder = Recorder(folder, cast(TrackedRun, _Tracked()), progress, config.stability, ahead)
        self.checkpoints = RunCheckpoints(config.checkpoint, folder, RunLog(progress, folder.log))
        self.rates: list[float] = []

    def go_on(self, trace: Sequence[Metrics], until: int) -> None:
        first = self._start()
        for step in range(first, len(trace)):
            if step == until:
                raise KeyboardInterrupt
            if not self._step(step, trace[step]):
                break
            if self.checkpoints.due(step, self.config.steps - 1):
                self._save(step + 1)
        (self.folder.path / MODEL / "deep").mkdir(parents=True, exist_ok=True)
        (self.folder.path / MODEL / "deep" / "weights").write_text(json.dumps(self.rates))
        self.recorder.conclude()
        self.folder.end = "collapsed" if self.recorder.collapsed else "finished"

    def _start(self) -> int:
        found = self.checkpoints.newest()
        if found is None:
            self.recorder.rewind(StabilityMonitor(self.config.stability).state_dict(), 0)
            return 0
        self.rates = json.loads((found.path / LEARNER / "weights").read_bytes())
        self.scheduler.load_state_dict(found.state.scheduler)
        self.recorder.rewind(found.state.stability, found.state.metrics_bytes)
        return found.state.step

    def _step(self, step: int, metrics: Metrics) -> bool:
        order = self.scheduler.decide(step, [], dict(metrics), 4)
        self.rates.append(order.decision.lr)
        late = {"gradient/update_norm_ratio": 0.25, "time/step": step + 0.1, "time/ended_s": 100.0 + step}
        finite = {key: value for key, value in {**order.metrics, **late}.items() if math.isfinite(value)}
        if self.config.record_rollouts and step % self.config.record_rollouts.every == 0:
            (self.folder.path / ROLLOUTS).mkdir(exist_ok=True)
            (self.folder.path / ROLLOUTS / f"train-{step:06d}.parquet").write_text(f"rollouts of {step}")
        return self.recorder.record(StepRecord(step=step, time_ms=step, metrics=finite, events=order.decision.events))

    def _save(self, step: int) -> None:
        keep = self.config.checkpoint.keep if self.config.checkpoint else None
        store = store_at(place_of(self.folder.path), keep)
        partial = store.begin(step)
        if isinstance(partial, Path):
            (partial / LEARNER).mkdir()
        (partial / LEARNER / "weights").write_bytes(json.dumps(self.rates).encode())
        state = RunState(
            step=step,
            weight_version=step,
            cursor=4 * step,
            scheduler=self.scheduler.state_dict(),
            stability=self.recorder.stability_state(),
            mlflow_run_id="0c41f0",
            metrics_bytes=self.recorder.sync(),
            learner_ranks=1,
        )
        store.commit(state, self.folder.config, [saved_file(partial, f"{LEARNER}/weights")])


class RecordedRuns:
    """Makes configs and runs of them; a run of arm A with seed S lives at `<root>/A/seed-S`.

    baseline = made.run("baseline", made.config())
    """

    trace = TRACE
    steps = STEPS

    def __init__(self, root: Path) -> None:
        self._root = root

    def at(self, root: str) -> "RecordedRuns":
        """Others, in another folder."""
        return RecordedRuns(Path(root))

    def folder(self, arm: str, seed: int = 0) -> Path:
        return self._root / arm / f"seed-{seed}"

    def config(self, scheduler: Mapping[str, Any] | None = None, **changes: Any) -> ExperimentConfig:
        tree = merge(TREE, {**changes, **({"scheduler": scheduler} if scheduler else {})})
        return ExperimentConfig.model_validate(tree)

    def triggered(self, threshold: float, **others: Any) -> dict[str, Any]:
        """A policy that decays at the first length above it: in `trace` at step 9 for 20, at 14 for 50."""
        block = {"kind": "signal_triggered", "signal": "response/length_mean", "threshold": threshold, "lr": 1e-6}
        return {**block, "smoothing": 1.0, "patience": 1, **others}

    def run(
        self,
        arm: str,
        config: ExperimentConfig,
        trace: Sequence[Metrics] = TRACE,
        until: int = STEPS,
        seed: int = 0,
    ) -> Path:
        """A run, or what is left of it to do; interrupted before step `until`. Returns its folder."""
        folder = self.folder(arm, seed)
        with suppress(KeyboardInterrupt), RunFolder.reopen(folder, config, seed) as opened:
            if not opened.is_over:
                _Run(opened, config).go_on(trace, until)
        return folder

    def fork(self, scheduler: Mapping[str, Any], *candidates: Path, **changes: Any) -> Fork | None:
        """Of trial-000 with seed 0, under that policy."""
        config = self.config(scheduler, **changes)
        return make_fork(best_source(config, 0, candidates), self.folder("trial-000"), config, 0, self.refuse)

    def refuse(self, path: Place, reason: str) -> None:
        raise AssertionError(f"{path} was passed over: {reason}")

    def files(self, folder: Path) -> dict[str, bytes]:
        """All that lies below a folder."""
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def rows(self, folder: Path) -> list[dict[str, float]]:
        return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]

    def outcome(self, folder: Path) -> dict[str, Any]:
        """All that a run has come to: its metrics, verdict, weights, rollouts, and where its checkpoints stand."""
        checkpoints = store_at(place_of(folder), keep=None)
        newest = checkpoints.newest(lambda path, reason: None)
        return {
            "rows": [list(row.items()) for row in self.rows(folder)],
            "verdict": json.loads((folder / VERDICT).read_text()),
            "weights": (folder / MODEL / "deep" / "weights").read_text(),
            "rollouts": {path.name: path.read_text() for path in (folder / ROLLOUTS).glob("*")},
            "state": newest and replace(newest.state, mlflow_run_id=None),  # MLflow has another run for a fork
        }


@pytest.fixture(autouse=True)
def _nothing_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def made(tmp_path: Path) -> RecordedRuns:
    return RecordedRuns(tmp_path / "runs" / "thresholds")
