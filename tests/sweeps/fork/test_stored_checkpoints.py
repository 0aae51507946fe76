"""Forks of runs whose checkpoints are not beside their other files, but on a mount or in an object store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3, s3_server

from orchestrator.checkpoints.place import place_of, store_at
from sweeps.fork.fork import Fork
from sweeps.fork.making import make_fork


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture
def storages(s3: S3, tmp_path: Path) -> dict[str, str | None]:
    (tmp_path / "mount").mkdir()
    return {"beside": None, "mount": str(tmp_path / "mount"), "remote": s3.uri(tmp_path.name)}


def checkpoint(storage: str | None) -> dict[str, Any]:
    return {"every": 6, "keep": 100, "storage": storage}


@pytest.mark.parametrize(
    ("source", "target"),
    [("remote", "remote"), ("mount", "mount"), ("beside", "remote"), ("remote", "beside"), ("mount", "beside")],
)
def test_a_fork_goes_on_as_a_run_of_its_own_would(
    made: Any, storages: dict[str, str | None], source: str, target: str
) -> None:
    baseline = made.run("baseline", made.config(checkpoint=checkpoint(storages[source])))
    decided, there = made.triggered(50.0), checkpoint(storages[target])
    forked = made.fork(decided, baseline, checkpoint=there)
    assert forked == Fork(source="baseline", forked_at=12, whole=False)
    config = made.config(decided, checkpoint=there)
    trial = made.run("trial-000", config)
    assert made.outcome(trial) == made.outcome(made.run("alone", config))
    assert (trial / "checkpoints").is_dir() == (target == "beside")
    assert place_of(trial) != place_of(baseline)


@pytest.mark.parametrize("there", ["mount", "remote"])
def test_a_fork_that_was_killed_before_it_had_its_name_leaves_nothing_in_the_storage(
    made: Any, storages: dict[str, str | None], there: str
) -> None:
    stored = checkpoint(storages[there])
    baseline = made.run("baseline", made.config(checkpoint=stored))
    before = len(store_at(place_of(baseline), keep=None).sizes())
    assert made.fork(made.triggered(50.0), baseline, checkpoint=stored) is not None
    folder = made.folder("trial-000")
    copied = store_at(place_of(folder), keep=None)
    assert len(copied.sizes()) == 1
    folder.rename(folder.with_name(".seed-0.forking"))  # as it is until the last moment
    assert make_fork(None, folder, made.config(), 0) is None
    assert copied.sizes() == []
    assert len(store_at(place_of(baseline), keep=None).sizes()) == before


def test_a_run_whose_checkpoints_nobody_can_reach_is_passed_over(made: Any, s3: S3, tmp_path: Path) -> None:
    stored = checkpoint(s3.uri(tmp_path.name))
    baseline = made.run("baseline", made.config(checkpoint=stored))
    (baseline / "checkpoints.json").write_text('{"checkpoints": "s3://bucket/a?nonsense=1"}')
    assert made.fork(made.triggered(50.0), baseline, checkpoint=stored) is None
