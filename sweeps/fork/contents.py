"""What goes into the folder of a run that begins with the steps of another."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from orchestrator import yaml_files
from orchestrator.checkpoints.place import Store, note, place_in, store_at
from orchestrator.checkpoints.state import RunState
from orchestrator.config import ExperimentConfig
from orchestrator.run.folder import CHECKPOINTS, CONFIG, LOG, METRICS, MODEL, ROLLOUTS, VERDICT, stored_config
from orchestrator.run.recorder import verdict_record
from orchestrator.run.status import RunStatus
from orchestrator.stability import Verdict
from sweeps.fork.checkpoint_link import CheckpointLink
from sweeps.fork.divergence import divergence
from sweeps.fork.fork import FORK, Fork
from sweeps.fork.forked_rows import rewritten, rows_of
from sweeps.fork.links import link_files
from sweeps.fork.plan import Beginning
from sweeps.fork.source import Source

STAGING = ".source"
RECORDED = re.compile(r"[^.].*-(\d{6,})\.parquet")  # a file of rollouts: <split>-<step>


class BeginningGone(ValueError):
    """A run is not any more what it was when it was chosen; says what it lacks."""


def fill(folder: Path, beginning: Beginning, config: ExperimentConfig, seed: int) -> Fork:
    """Put everything into a folder.

    Args:
        folder: empty.
        beginning: whose run may go on meanwhile.
        config: of the run that the folder is for, an arm merged in.
        seed: of that run.

    Raises:
        StorageError: an object store cannot be used.
        BeginningGone, CheckpointDamaged: it cannot be used; some of it may be in the folder.
        OSError: the disk refuses.
    """
    link = None
    if beginning.checkpoint is not None:  # first of all: it may be about to be removed
        link = CheckpointLink.of(beginning.checkpoint, beginning.steps, folder / STAGING)
    source = _read_again(beginning, config, seed)
    rows = list(rows_of(source.lines, str(source.folder / METRICS)))
    decided = divergence(config.scheduler, config.steps, rows)
    if decided.state is None or len(rows) != len(source.lines):
        raise BeginningGone(f"{METRICS} has other steps now")
    metrics = rewritten(rows, decided.decisions)
    (folder / METRICS).write_bytes(metrics)
    (folder / CONFIG).write_text(yaml_files.dump(stored_config(config, seed)), encoding="utf-8")
    status = replace(RunStatus.begin(), last_step=len(rows) - 1)
    if link is None:
        _end_as(source, folder, status)
    else:
        if link.state.metrics_bytes != sum(len(line) + 1 for line in source.lines):
            raise BeginningGone(f"{METRICS} does not have all steps before it")
        scheduler = {**link.state.scheduler, "policy": decided.state}
        state = replace(link.state, scheduler=scheduler, mlflow_run_id=None, metrics_bytes=len(metrics))
        link.move_to(_store(folder, config, seed, status.uid), state, stored_config(config, seed))
        _go_on(source, folder, status, state)
    _link(source.folder / ROLLOUTS, folder / ROLLOUTS, lambda name: _step_of(name) < len(rows))
    fork = Fork(source=source.arm, forked_at=len(rows), whole=link is None)
    (folder / FORK).write_text(fork.to_json(), encoding="utf-8")
    return fork


def _store(folder: Path, config: ExperimentConfig, seed: int, uid: str) -> Store:
    """Where the run's checkpoints go, as it will look for them once its folder has its name."""
    if config.checkpoint is None or config.checkpoint.storage is None:
        return store_at(folder / CHECKPOINTS, keep=None)
    place = place_in(config.checkpoint.storage, folder.with_name(f"seed-{seed}"), uid)
    note(folder, place)
    return store_at(place, keep=None)


def _read_again(beginning: Beginning, config: ExperimentConfig, seed: int) -> Source:
    """The source with the lines that count, as it is now: a run that is taken back writes some of its steps anew."""
    source = Source.read(beginning.source, config, seed)
    if source is None or (beginning.whole and source.end is None):
        raise BeginningGone("is not the run any more that it was")
    if len(source.lines) < beginning.steps:
        raise BeginningGone(f"{METRICS} does not have all steps before it")
    return source if beginning.whole else replace(source, lines=source.lines[: beginning.steps])


def _end_as(source: Source, folder: Path, status: RunStatus) -> None:
    """Let the run be over, as its source is."""
    assert source.end is not None
    try:
        (folder / VERDICT).write_bytes((source.folder / VERDICT).read_bytes())
    except FileNotFoundError:
        raise BeginningGone(f"{VERDICT} is missing") from None
    _link(source.folder / MODEL, folder / MODEL)
    (folder / LOG).write_text(f"forked: all steps are those of {source.folder}\n", encoding="utf-8")
    status.end(source.end).write(folder)


def _go_on(source: Source, folder: Path, status: RunStatus, state: RunState) -> None:
    """Let the run stand as if it had been interrupted before its next step."""
    if (verdict := state.stability["verdict"]) is not None:
        (folder / VERDICT).write_text(json.dumps(verdict_record(Verdict(**verdict))) + "\n", encoding="utf-8")
    told = f"forked: the steps before step {state.step} are those of {source.folder}"
    (folder / LOG).write_text(f"{told}\n", encoding="utf-8")
    status.end("interrupted", told).write(folder)


def _link(source: Path, folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    if source.is_dir():
        try:
            link_files(source, folder, wanted)
        except FileNotFoundError as error:
            raise BeginningGone(f"{error.filename} has vanished") from error


def _step_of(name: str) -> float:
    """Of a file of rollouts; one that is still being written is of no step that counts."""
    recorded = RECORDED.fullmatch(name)
    return int(recorded[1]) if recorded else math.inf
