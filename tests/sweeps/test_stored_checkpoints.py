"""Runs whose checkpoints are on a mount or in an object store, as they are listed, shown, checked and deleted."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from run_folders import make_run
from s3_server import S3, s3_server

from actors.storage.remote_folder import RemoteFolder, StorageError
from orchestrator.checkpoints.manifest import Manifest, content_as_saved
from orchestrator.checkpoints.place import POINTER, Place, place_in, settle, store_at
from orchestrator.config import CheckpointConfig
from orchestrator.config_errors import ConfigError
from sweeps.run_deletion import delete_checkpoints, delete_run
from sweeps.run_summary import RunSummary
from sweeps.runs_cli import list_runs, show

KEY = "demo/decay/seed-0"
UIDS = ("9f86d081884c4d659a2feaa0c55ad015", "5e884898da280471a1b2c3d4e5f60718")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["mount", "remote"])
def storage(request: pytest.FixtureRequest, s3: S3, tmp_path: Path) -> str:
    s3.refused = None
    (tmp_path / "mount").mkdir()
    return str(tmp_path / "mount") if request.param == "mount" else s3.uri(tmp_path.name)


@pytest.fixture
def run(storage: str, tmp_path: Path) -> Path:
    """With one checkpoint in the storage; another run of the same name has one there, too."""
    folder = make_run(tmp_path / "runs" / KEY)
    settle(folder, CheckpointConfig(storage=storage), UIDS[0])
    for uid in UIDS:
        put(place_in(storage, folder, uid))
    return folder


def put(place: Place) -> None:
    name = "step-000002" + ("" if isinstance(place, Path) else "-5e884898")
    contents = {"learner/weights": bytes(100)}
    manifest, digest = Manifest(
        fingerprint="", files=tuple(content_as_saved(name, content) for name, content in contents.items())
    ).contents()
    for file, content in {**contents, "manifest.sha256": digest, "manifest.json": manifest}.items():
        path = place / name / file
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_they_count_as_the_run_s_wherever_they_are(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = RunSummary.read(KEY, run)
    assert [(found.step, found.state) for found in summary.checkpoints] == [(2, "complete")]
    assert 100 < summary.checkpoint_bytes < summary.num_bytes
    assert summary.problems == ()
    list_runs(runs=run.parents[2], as_json=True)
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["checkpoints"], listed["checkpoint_bytes"]) == (1, summary.checkpoint_bytes)


def test_they_are_shown_with_their_place_and_checked(
    run: Path, storage: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    show(KEY, verify=True, runs=run.parents[2])
    shown = capsys.readouterr().out
    assert re.search(r"step 2 +│ complete, every byte as written", shown)
    assert re.search(rf"checkpoints in +│ {re.escape(str(place_in(storage, run, UIDS[0])))}", shown)


@pytest.mark.parametrize("delete", [delete_run, delete_checkpoints])
def test_they_are_deleted_and_those_of_another_run_stay(
    run: Path, storage: str, delete: Callable[[Path], None]
) -> None:
    delete(run)
    assert run.exists() == (delete is delete_checkpoints)
    mine, others = (store_at(place_in(storage, run, uid), keep=None) for uid in UIDS)
    assert mine.sizes() == []
    assert len(others.sizes()) == 1


@pytest.mark.parametrize("storage", ["remote"], indirect=True)
def test_a_run_stays_when_its_storage_cannot_be_reached(run: Path, s3: S3) -> None:
    s3.refused = ".*"
    summary = RunSummary.read(KEY, run)
    assert summary.checkpoints == () and "ACCESS_DENIED" in summary.problems[0]
    with pytest.raises(StorageError, match="ACCESS_DENIED"):
        delete_run(run)
    assert run.exists()


def test_a_note_that_leads_nowhere_is_a_problem_and_deletes_nothing(run: Path) -> None:
    (run / POINTER).write_text("{")
    assert RunSummary.read(KEY, run).problems[0].startswith(f"{POINTER}: checkpoints: ")
    with pytest.raises(ConfigError):
        delete_run(run)
    assert run.exists()


def test_what_else_is_in_a_place_stays(run: Path, storage: str) -> None:
    place = place_in(storage, run, UIDS[0])
    (place / "notes").write_bytes(b"x")
    delete_checkpoints(run)
    assert (place / "notes").read_bytes() == b"x"
    if isinstance(place, RemoteFolder):
        assert list(place.files()) == ["notes"]
