"""Where a run's checkpoints are: noted in its folder, and never looked for elsewhere without a word."""

from pathlib import Path

import pytest

from actors.storage.remote_folder import RemoteFolder
from orchestrator.checkpoints.place import POINTER, check_same_place, place_in, place_of, settle, store_at
from orchestrator.checkpoints.remote_store import RemoteStore
from orchestrator.checkpoints.store import CheckpointStore
from orchestrator.config import CheckpointConfig
from orchestrator.config_errors import ConfigError

UID = "9f86d081884c4d659a2feaa0c55ad015"
URI = "s3://bucket/all?region=x"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "demo" / "decay" / "seed-0"
    folder.mkdir(parents=True)
    return folder


def stored(storage: str | None) -> CheckpointConfig:
    return CheckpointConfig(storage=storage)


def mistake(run: Path, config: CheckpointConfig) -> str:
    with pytest.raises(ConfigError) as raised:
        check_same_place(run, config, "e.yaml")
    return str(raised.value)


def test_without_a_storage_they_are_beside_the_other_files(run: Path) -> None:
    for config in (None, stored(None)):
        assert settle(run, config, UID) == place_of(run) == run / "checkpoints"
    assert list(run.iterdir()) == []
    assert isinstance(store_at(place_of(run), keep=1), CheckpointStore)


@pytest.mark.parametrize("storage", [URI, "gs://bucket"])
def test_in_an_object_store_they_are_below_the_names_of_the_run(run: Path, storage: str) -> None:
    place = settle(run, stored(storage), UID)
    assert place == place_of(run) == place_in(storage, run, UID)
    assert isinstance(place, RemoteFolder)
    assert place.without_query == f"{storage.partition('?')[0]}/demo/decay/seed-0/{UID}"
    assert isinstance(store_at(place, keep=1), RemoteStore)


def test_on_a_mount_they_are_in_a_folder_of_the_run_s(run: Path, tmp_path: Path) -> None:
    for storage in (str(tmp_path / "mount"), f"file://{tmp_path}/mount"):
        assert settle(run, stored(storage), UID) == tmp_path / "mount" / "demo" / "decay" / "seed-0" / UID
    assert place_of(run.rename(run.with_name("seed-0.old-1"))) == place_in(str(tmp_path / "mount"), run, UID)


def test_a_run_that_goes_on_finds_them_where_they_were(run: Path) -> None:
    place = settle(run, stored(URI), UID)
    assert settle(run, None, UID) == settle(run, stored(URI), UID) == place
    moved = settle(run, stored("s3://bucket/all?region=y"), UID)  # only the way there is another
    assert str(place_of(run)) == str(moved) == str(place).replace("region=x", "region=y")


def test_another_place_than_that_of_the_run_is_refused(run: Path) -> None:
    place = settle(run, stored(URI), UID)
    for storage, got in ((None, "null"), ("s3://other/all", "'s3://other/all'"), ("/mount", "'/mount'")):
        told = mistake(run, stored(storage))
        assert told == (
            f"e.yaml: checkpoint.storage: got {got}, expected the storage of the run that is resumed: "
            f"its checkpoints are in {place}"
        )
        with pytest.raises(ConfigError):
            settle(run, stored(storage), UID)


def test_a_storage_for_a_run_that_has_checkpoints_without_one_is_refused(run: Path) -> None:
    check_same_place(run, stored(URI), "e.yaml")
    (run / "checkpoints" / "step-000040").mkdir(parents=True)
    assert mistake(run, stored(URI)).endswith(f"expected null: its checkpoints are in {run / 'checkpoints'}")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"checkpoints": 3}', '{"checkpoints": "x"}', '{"other": "/x"}'])
def test_a_note_that_cannot_be_used_is_named(run: Path, content: str) -> None:
    (run / POINTER).write_text(content)
    with pytest.raises(ConfigError, match=r"checkpoints\.json: checkpoints: .*expected the folder or URI"):
        place_of(run)
