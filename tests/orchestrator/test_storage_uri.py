"""What an experiment file may say of its checkpoints' place."""

import doctest
from pathlib import Path

import pytest
from experiment_files import changed
from pydantic import ValidationError

from orchestrator import storage_uri as module
from orchestrator.config import CheckpointConfig, ExperimentConfig
from orchestrator.storage_uri import EXPECTED, SECRETS, local_folder, mistake_in


def test_the_examples_in_the_docstrings_are_right() -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    "storage",
    [
        "s3://bucket",
        "s3://bucket/a/b?region=eu-west-1",
        "s3://bucket/a?endpoint_override=http%3A%2F%2F10.0.0.1:9000",
        "gs://bucket/a",
        "gs://anonymous@bucket/a",
        "file:///shared/checkpoints",
        "/shared/checkpoints",
    ],
)
def test_object_stores_and_absolute_folders_will_do(storage: str) -> None:
    assert mistake_in(storage) is None
    tree = changed({"checkpoint": {"storage": storage}})
    assert ExperimentConfig.model_validate(tree).checkpoint == CheckpointConfig(storage=storage)


@pytest.mark.parametrize(
    "storage",
    ["", "checkpoints", "./x", "ftp://host/a", "s3://", "s3:///a", "s3://b/a#x", "s3:bucket", "file://host/a", "//["],
)
def test_anything_else_is_told_what_is_expected(storage: str) -> None:
    assert mistake_in(storage) == EXPECTED
    with pytest.raises(ValidationError, match="BUCKET/PREFIX"):
        CheckpointConfig(storage=storage)


@pytest.mark.parametrize("storage", ["s3://key:secret@bucket/a", "s3://key@bucket", "gs://me@bucket"])
def test_credentials_do_not_belong_there(storage: str) -> None:
    assert mistake_in(storage) == SECRETS


def test_a_mount_is_a_folder_as_any_other() -> None:
    assert local_folder("/shared/a b") == local_folder("file:///shared/a%20b") == Path("/shared/a b")
    assert local_folder("gs://bucket/a") is None
