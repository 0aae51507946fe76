"""A fork is there whole or not at all, from the best beginning that is good."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from orchestrator.checkpoints.store import CheckpointStore
from orchestrator.run.folder import RunFolderFull
from orchestrator.run.lock import run_lock
from sweeps.fork.fork import Fork, read_fork
from sweeps.fork.making import make_fork
from sweeps.fork.plan import best_source


def test_a_damaged_newest_checkpoint_falls_to_the_one_before_and_is_named(made: Any) -> None:
    baseline = made.run("baseline", made.config())
    damaged = baseline / "checkpoints" / "step-000012"
    (damaged / "learner" / "weights").write_text("[]")
    told: list[tuple[Path, str]] = []
    config = made.config(made.triggered(50.0))
    plan = best_source(config, 0, [baseline])
    assert plan is not None
    assert plan.best.steps == 12
    forked = make_fork(plan, made.folder("trial-000"), config, 0, lambda *what: told.append(what))
    assert forked == Fork(source="baseline", forked_at=6, whole=False)
    assert [path for path, _ in told] == [damaged]
    assert "weights" in told[0][1]
    assert made.outcome(made.run("trial-000", config)) == made.outcome(made.run("alone", config))


def test_without_any_good_checkpoint_nothing_is_made(made: Any) -> None:
    baseline = made.run("baseline", made.config())
    config = made.config(made.triggered(20.0))
    plan = best_source(config, 0, [baseline])
    shutil.rmtree(baseline / "checkpoints")
    assert make_fork(plan, made.folder("trial-000"), config, 0) is None
    assert list(made.folder("trial-000").parent.iterdir()) == []


def test_what_is_there_already_is_left_alone(made: Any) -> None:
    baseline = made.run("baseline", made.config())
    there = made.run("trial-000", made.config(made.triggered(20.0)), until=3)
    before = made.files(there)
    with pytest.raises(RunFolderFull, match="exists"):
        made.fork(made.triggered(20.0), baseline)
    assert made.files(there) == before


def test_what_a_killed_try_left_is_removed_even_when_there_is_nothing_to_fork_from(made: Any) -> None:
    baseline = made.run("baseline", made.config())
    for candidates in ([], [baseline]):
        left = made.folder("trial-000").with_name(".seed-0.forking")
        (left / "checkpoints").mkdir(parents=True)
        (left / "metrics.jsonl").touch()
        made.fork(made.triggered(20.0), *candidates)
        assert not left.exists()
    assert read_fork(made.folder("trial-000")) is not None


DISK = {"open", "os.mkdir", "os.rename", "os.link", "os.rmdir", "os.remove", "os.scandir"}  # audit events of the disk


def killed_at(call: int, work: Callable[[], None]) -> bool:
    """Do something in a process that is killed when it turns to the disk for that time; whether it came so far."""
    if (child := os.fork()) == 0:
        calls = 0

        def count(event: str, _: Any) -> None:
            nonlocal calls
            if event in DISK:
                calls += 1
                if calls > call:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("whole", [False, True])
def test_a_kill_at_any_moment_leaves_nothing_or_all_of_it(made: Any, whole: bool) -> None:
    config = made.config(made.triggered(99.0 if whole else 20.0))
    baseline, folder = made.run("baseline", made.config()), made.folder("trial-000")
    before = made.files(baseline)
    plan = best_source(config, 0, [baseline])
    left_over, call = 0, 0
    while killed_at(call, lambda: make_fork(plan, folder, config, 0, made.refuse) and None):
        assert made.files(baseline) == before
        if folder.exists():
            assert read_fork(folder) is not None
            shutil.rmtree(folder)
        else:
            left_over += folder.parent.exists() and any(folder.parent.iterdir())
        call += 5
    assert left_over > 10
    assert made.outcome(made.run("trial-000", config))["rows"] == made.outcome(made.run("alone", config))["rows"]


def test_checkpoints_of_a_source_at_work_come_and_go(made: Any) -> None:
    often = {"checkpoint": {"every": 1, "keep": 1}}
    source = Thread(target=lambda: made.run("baseline", made.config(**often)))
    source.start()
    config = made.config(made.triggered(99.0), **often)
    forks: list[tuple[Path, Fork]] = []
    while source.is_alive():
        folder = made.folder(f"trial-{len(forks):03d}")
        if forked := make_fork(best_source(config, 0, [made.folder("baseline")]), folder, config, 0):
            forks.append((folder, forked))
    source.join()
    recorded = made.rows(made.folder("baseline"))
    for folder, forked in forks:
        assert made.rows(folder) == recorded[: forked.forked_at]
        checkpoint = CheckpointStore(folder / "checkpoints", keep=None).newest(made.refuse)
        assert (checkpoint is None) == forked.whole
        assert checkpoint is None or checkpoint.state.step == forked.forked_at
    assert len({forked.forked_at for _, forked in forks}) > 1


def test_a_line_that_is_being_written_is_left_out(made: Any) -> None:
    baseline = made.run("baseline", made.config(), until=13)
    with run_lock(baseline), (baseline / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 13, "scheduler/l')
        metrics.flush()
        assert made.fork(made.triggered(50.0), baseline) == Fork(source="baseline", forked_at=12, whole=False)
