"""A linked checkpoint is checked where it stays, and becomes one of another run's."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.checkpoints.manifest import CheckpointDamaged
from orchestrator.checkpoints.store import CheckpointStore
from sweeps.fork.checkpoint_link import CheckpointLink


@pytest.fixture
def checkpoint(made: Any) -> Path:
    folder: Path = made.run("baseline", made.config(), until=7) / "checkpoints" / "step-000006"
    return folder


def test_it_becomes_a_good_checkpoint_with_a_state_of_its_own(made: Any, checkpoint: Path, tmp_path: Path) -> None:
    before = made.files(checkpoint)
    link = CheckpointLink.of(checkpoint, 6, tmp_path / "source")
    assert [file.name for file in link.files] == ["learner/weights"]
    state = replace(link.state, mlflow_run_id=None, metrics_bytes=7)
    link.move_to(CheckpointStore(tmp_path / "checkpoints", keep=None), state, {"name": "mine"})
    found = CheckpointStore(tmp_path / "checkpoints", keep=None).newest(made.refuse)
    assert found is not None
    assert found.state == state
    assert found.config == {"name": "mine"}
    assert os.path.samefile(found.path / "learner" / "weights", checkpoint / "learner" / "weights")
    assert not (tmp_path / "source").exists()
    assert made.files(checkpoint) == before


def test_one_whose_owner_removes_it_is_as_good_as_before(made: Any, checkpoint: Path, tmp_path: Path) -> None:
    link = CheckpointLink.of(checkpoint, 6, tmp_path / "source")
    for path in sorted(checkpoint.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    link.move_to(
        CheckpointStore(tmp_path / "checkpoints", keep=None), link.state, made.config().model_dump(mode="json")
    )
    assert CheckpointStore(tmp_path / "checkpoints", keep=None).newest(made.refuse) is not None


@pytest.mark.parametrize("name", ["learner/weights", "state.json", "config.yaml", "manifest.json", "manifest.sha256"])
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_one_that_is_not_as_it_was_written_is_refused(checkpoint: Path, tmp_path: Path, name: str, damage: str) -> None:
    content = (checkpoint / name).read_bytes()
    (checkpoint / name).unlink()
    if damage == "changed":
        (checkpoint / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(CheckpointDamaged, match=name.partition(".")[0]):
        CheckpointLink.of(checkpoint, 6, tmp_path / "source")


def test_one_that_is_gone_or_of_another_step_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointDamaged, match="missing"):
        CheckpointLink.of(checkpoint.with_name("step-000099"), 99, tmp_path / "nothing")
    with pytest.raises(CheckpointDamaged, match="of step 6, the folder's name says 9"):
        CheckpointLink.of(checkpoint, 9, tmp_path / "source")
