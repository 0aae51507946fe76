"""Sweep files, drivers that work off their trials without running anything, and runs that only write metrics."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from orchestrator import yaml_files
from orchestrator.experiment_file import merge
from orchestrator.model_files import ModelFiles
from orchestrator.records import StepRecord
from orchestrator.run.folder import METRICS
from orchestrator.run_spec import RunSpec
from orchestrator.task_problems import TaskFiles
from sweeps.space import ask
from sweeps.study.samplers import pruner_of, sampler_of
from sweeps.study.storage import StudyStore
from sweeps.study.study import Study
from sweeps.study.trial import Grounds
from sweeps.sweep_file import SweepFile

EXPERIMENT: dict[str, Any] = {
    "name": "e",
    "model": {"path": "embedded"},
    "task": {"kind": "arithmetic"},
    "rollout": {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": 8},
    "scheduler": {"kind": "length_triggered", "lr": 1e-3, "anchor": "surge"},
    "evaluation": {"every": 5, "samples": 4},
    "steps": 20,
    "seeds": [0, 1],
}
SWEEP: dict[str, Any] = {
    "experiment": "e.yaml",
    "space": {
        "scheduler.ratio": {"kind": "float", "low": 1.2, "high": 3.0},
        "scheduler.patience": {"kind": "int", "low": 1, "high": 5},
    },
    "objective": {"metric": "reward/mean"},
    "sampler": {"kind": "random"},
    "trials": 6,
}


class Sweeps:
    """Sweep files over one experiment, and their studies in one folder of runs."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.runs = root / "runs"
        self.folder = self.runs / "ratios"

    def read(self, changes: dict[str, Any] | None = None, **experiment: Any) -> SweepFile:
        (self._root / "e.yaml").write_text(yaml_files.dump(merge(EXPERIMENT, experiment)))
        path = self._root / "ratios.yaml"
        path.write_text(yaml_files.dump(merge(SWEEP, changes or {})))
        return SweepFile.read(path)

    def open(self, changes: dict[str, Any] | None = None, *, resume: bool = False, **experiment: Any) -> StudyStore:
        return StudyStore.open(self.read(changes, **experiment), self.folder, resume=resume)


class Driver:
    """Works off a study as `Study` does; a trial is worth its ratio."""

    def __init__(self, store: StudyStore, sweep: SweepFile, folder: Path) -> None:
        self.store = store
        self._config = sweep.config
        self._folder = folder

    def work(self) -> Iterator[FrozenTrial]:
        """Trial by trial, until none is left that others do not have."""
        while numbers := self.store.open_numbers():
            done = next((trial for number in numbers if (trial := self.run(number))), None)
            if done is not None:
                yield done
            else:
                time.sleep(0.02)

    def run(self, number: int) -> FrozenTrial | None:
        config, folder = self._config, self._folder / f"trial-{number:03d}"
        with self.store.claim(number, folder, sampler_of(config.sampler, number), pruner_of(config.pruner)) as trial:
            if trial is None:
                return None
            params = ask(config.space, trial)
            for step in {0, 1} - set(self.store.trials()[number].intermediate_values):
                trial.report(params["scheduler.ratio"], step)
            self.store.tell(trial, params["scheduler.ratio"], TrialState.COMPLETE)
        return self.store.trials()[number]


@dataclass(frozen=True, kw_only=True)
class Rehearsal(Grounds):
    """Runs that train nothing: `play` does what is left of a run."""

    play: Callable[[RunSpec], None]

    def run(self, spec: RunSpec) -> None:
        self.play(spec)


class Stage:
    """A study whose runs are played, of `Sweeps` with these changes; a second one goes on with the first one's.

    stage = Stage(sweeps, {"trials": 3}, play)
    record = stage.study().run()
    """

    def __init__(self, sweeps: Sweeps, changes: dict[str, Any], play: Callable[[RunSpec], None]) -> None:
        self.sweep = sweeps.read(changes)
        self.store = StudyStore.open(self.sweep, sweeps.folder, resume=True)
        self.interrupted = threading.Event()
        self.screen = StringIO()
        config = self.sweep.baseline_config()
        away: Any = None
        template = RunSpec(
            config=config,
            model=ModelFiles(path="embedded", context_length=512),
            task=TaskFiles(named_in="e.yaml", train=None, sets={}),
            arm="default",
            seed=0,
            folder=sweeps.runs,
        )
        self.grounds = Rehearsal(
            sweep=self.sweep,
            template=template,
            runs=sweeps.runs,
            crews=away,
            tracker=away,
            parent=away,
            console=Console(file=self.screen, width=200),
            interrupted=self.interrupted.is_set,
            play=play,
        )

    def study(self) -> Study:
        return Study(self.grounds, self.store, self.interrupted)

    def states(self) -> list[str]:
        return [trial.state.name.lower() for trial in self.store.trials()]


def play_steps(spec: RunSpec, steps: int = 3, **metrics: float) -> bool:
    """Record what is left of a run, `reward/mean` being the scheduler's ratio; False when the watch has ended it."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    path = spec.folder / METRICS
    recorded = path.read_text().splitlines() if path.exists() else []
    ratio = getattr(spec.config.scheduler, "ratio", 0.0)
    for step in range(steps):
        row = {"step": step, "reward/mean": ratio, **metrics}
        if step >= len(recorded):
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        values = {key: value for key, value in row.items() if key != "step"}
        assert spec.watch is not None
        if not spec.watch.see(StepRecord(step=step, time_ms=0, metrics=values, events=())):
            return False
    return True


@pytest.fixture(autouse=True)
def _nothing_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def sweeps(tmp_path: Path) -> Sweeps:
    return Sweeps(tmp_path)


@pytest.fixture
def play() -> Callable[..., bool]:
    return play_steps


@pytest.fixture
def stage(sweeps: Sweeps) -> Callable[..., Stage]:
    return partial(Stage, sweeps)


@pytest.fixture
def drive() -> type[Driver]:
    return Driver
