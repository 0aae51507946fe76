"""A storage that cannot be used is found before anything is started, and told in one line."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import S3, s3_server

from orchestrator.checkpoints.storage_check import check_storage
from orchestrator.config import CheckpointConfig
from orchestrator.config_errors import ConfigError


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


def check(storage: str | None, timeout_s: float = 60.0) -> None:
    check_storage([CheckpointConfig(storage=storage), None], "e.yaml", timeout_s)


def mistake(storage: str, timeout_s: float = 60.0) -> str:
    with pytest.raises(ConfigError) as raised:
        check(storage, timeout_s)
    told = str(raised.value)
    assert "\n" not in told
    assert told.startswith("e.yaml: checkpoint.storage: ")
    assert ", expected a place where files can be written, read and deleted (" in told
    return told


def test_one_that_can_be_used_is_left_as_it_was(s3: S3, tmp_path: Path) -> None:
    for storage in (None, str(tmp_path), f"file://{tmp_path}", s3.uri("checkpoints")):
        check(storage)
    assert list(tmp_path.iterdir()) == []
    assert s3.names("") == []


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert mistake(str(tmp_path / "mount")).endswith("(No such file or directory)")
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_is_not_there_or_may_not_be_written_is_told(s3: S3) -> None:
    assert "NO_SUCH_BUCKET" in mistake(s3.uri("a", bucket="other"))
    s3.refused = "PUT|POST"
    assert "ACCESS_DENIED" in mistake(s3.uri("a"))
    s3.refused = "DELETE"
    assert "ACCESS_DENIED" in mistake(s3.uri("a"))
    s3.refused = None
    s3.objects.clear()


def test_options_that_nobody_knows_are_told() -> None:
    assert "nonsense" in mistake("s3://bucket/a?nonsense=1")


def test_a_store_that_never_answers_is_waited_for_a_while_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        storage = f"s3://bucket/a?scheme=http&endpoint_override=127.0.0.1:{silent.getsockname()[1]}"
        assert "(no answer within 1 s)" in mistake(storage, timeout_s=1)
