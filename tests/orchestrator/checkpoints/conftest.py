"""Small checkpoints to write, damage and read."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from actors.messages import SavedFile
from orchestrator.checkpoints.checkpoint import LEARNER
from orchestrator.checkpoints.manifest import saved_file
from orchestrator.checkpoints.state import RunState
from orchestrator.checkpoints.store import CheckpointStore

SIZES = {"__0_0.distcp": 7340, "__1_0.distcp": 5021, ".metadata": 611, "empty": 0}
CONFIG: dict[str, Any] = {"name": "e", "scheduler": {"kind": "constant", "lr": 1e-6}, "steps": 100, "seeds": [0]}


def state_of(step: int, cursor: int = 0) -> RunState:
    return RunState(
        step=step,
        weight_version=step + 1,
        cursor=cursor,
        scheduler={"policy": {"last_step": step}},
        stability={"signs": {}, "verdict": None},
        mlflow_run_id="0c41f0",
        metrics_bytes=300 * step,
        learner_ranks=2,
    )


def learner_files(folder: Path, seed: int = 0) -> list[SavedFile]:
    """Random files as ranks would write them, and what they say of them."""
    (folder / LEARNER).mkdir()
    for name, size in SIZES.items():
        (folder / LEARNER / name).write_bytes(Random(f"{seed}/{name}").randbytes(size))
    return [saved_file(folder, f"{LEARNER}/{name}") for name in SIZES]


def write_checkpoint(store: CheckpointStore, step: int, cursor: int = 0) -> Path:
    files = learner_files(store.begin(step), seed=cursor)
    return store.commit(state_of(step, cursor), CONFIG, files)


@pytest.fixture
def write() -> Callable[..., Path]:
    """Writes the checkpoint of a step: (store, step, cursor) -> its folder."""
    return write_checkpoint


@pytest.fixture
def make_state() -> Callable[..., RunState]:
    """(step, cursor) -> state."""
    return state_of


@pytest.fixture
def make_files() -> Callable[..., list[SavedFile]]:
    """Writes what learners would: (folder of the checkpoint) -> files."""
    return learner_files


@pytest.fixture
def config() -> dict[str, Any]:
    """What the checkpoints above hold."""
    return CONFIG


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "run" / "checkpoints", keep=3)
