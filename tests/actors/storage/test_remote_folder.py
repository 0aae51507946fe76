"""Files in an object store: real requests of pyarrow's S3 client to a small server."""

import os
import pickle
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from s3_server import S3, s3_server

from actors.messages import SavedFile
from actors.storage.remote_folder import BLOCK_BYTES, RemoteFolder, StorageError, is_remote

LARGE = os.urandom(BLOCK_BYTES + 5)  # more than a block, and than one part of an upload


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture
def folder(s3: S3) -> RemoteFolder:
    """Empty."""
    s3.objects.clear()
    s3.refused = None
    return RemoteFolder(s3.uri("checkpoints/demo"))


def test_names_are_added_before_the_query() -> None:
    folder = RemoteFolder("s3://bucket/a/?region=x") / "b" / "c"
    assert str(folder) == "s3://bucket/a/b/c?region=x"
    assert (folder.name, str(folder.parent), folder.without_query) == (
        "c",
        "s3://bucket/a/b?region=x",
        "s3://bucket/a/b/c",
    )
    assert folder == RemoteFolder(str(folder)) != folder.parent
    assert str(RemoteFolder("gs://bucket") / "a") == "gs://bucket/a"
    assert is_remote("gs://bucket") and not is_remote("/s3:/a")


def test_what_was_written_is_listed_and_comes_back(folder: RemoteFolder) -> None:
    assert folder.files() == {}
    (folder / "a" / "b").write_bytes(b"content")
    (folder / "empty").write_bytes(b"")
    assert {name: file.num_bytes for name, file in folder.files().items()} == {"a/b": 7, "empty": 0}
    assert (folder / "a" / "b").read_bytes() == b"content"
    assert b"".join((folder / "empty").blocks()) == b""


def test_a_file_of_several_parts_goes_there_and_back_with_its_digest(folder: RemoteFolder, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(LARGE)
    expected = SavedFile(name="learner/x", num_bytes=len(LARGE), sha256=sha256(LARGE).hexdigest())
    assert (folder / "x").upload(tmp_path / "x", "learner/x") == expected
    assert (folder / "x").download(tmp_path / "y", "learner/x") == expected
    assert (tmp_path / "y").read_bytes() == LARGE


def test_a_copy_is_made_by_the_store(folder: RemoteFolder, s3: S3) -> None:
    (folder / "x").write_bytes(b"content")
    s3.requests.clear()
    (folder / "x").copy_to(folder / "y" / "x")
    assert (folder / "y" / "x").read_bytes() == b"content"
    assert sum(asked.startswith("GET /bucket/checkpoints/demo/x") for asked in s3.requests) == 0


def test_what_is_deleted_is_gone_and_may_have_been_gone_before(folder: RemoteFolder, s3: S3) -> None:
    for name in ("a/x", "a/deep/x", "b/x"):
        (folder / name).write_bytes(b"x")
    for _ in range(2):
        (folder / "a").delete()
        (folder / "b" / "x").delete_file()
    assert folder.files() == {}
    (folder / "b" / "x").write_bytes(b"x")
    (folder / "b").delete_file()
    assert list(folder.files()) == ["b/x"]


def test_a_file_that_is_not_there_is_told_from_a_store_that_refuses(folder: RemoteFolder, s3: S3) -> None:
    with pytest.raises(FileNotFoundError):
        (folder / "x").read_bytes()
    with pytest.raises(FileNotFoundError):
        list((folder / "x").blocks())
    (folder / "x").write_bytes(b"x")
    s3.refused = ".*"
    doings: list[Callable[[], object]] = [
        folder.files,
        (folder / "x").read_bytes,
        (folder / "x").delete_file,
        lambda: (folder / "x").write_bytes(b"y"),
    ]
    for doing in doings:
        with pytest.raises(StorageError) as raised:
            doing()
        assert "\n" not in str(raised.value)
        assert str(raised.value).startswith(f"s3://bucket/checkpoints/demo{'' if doing == doings[0] else '/x'}?")


def test_a_bucket_that_is_not_there_and_options_that_nobody_knows_are_told(folder: RemoteFolder, s3: S3) -> None:
    with pytest.raises(StorageError, match="NO_SUCH_BUCKET"):
        (RemoteFolder(s3.uri("a", bucket="other")) / "x").write_bytes(b"x")
    with pytest.raises(StorageError, match="nonsense"):
        RemoteFolder("s3://bucket?nonsense=1").files()


def test_the_error_can_be_sent_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(StorageError("s3://bucket", "away")))
    assert (str(error), error.reason, error.disk_full) == ("s3://bucket cannot be used: away", "away", False)
