"""Files under a second name, and copies where the file system does not know such a thing."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from sweeps.fork.links import link_files


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "a" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "a" / "one").write_text("1")
    (tmp_path / "a" / "deep" / "er" / "two").write_text("2")
    return tmp_path / "a"


def test_all_files_have_a_second_name(source: Path, tmp_path: Path) -> None:
    link_files(source, tmp_path / "b" / "c")
    for name in ("one", "deep/er/two"):
        assert os.path.samefile(source / name, tmp_path / "b" / "c" / name)


def test_only_those_that_are_wanted(source: Path, tmp_path: Path) -> None:
    link_files(source, tmp_path / "b", lambda name: name == "two")
    assert [path.name for path in (tmp_path / "b").rglob("*") if path.is_file()] == ["two"]


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_there_are_no_links_they_are_copied(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.link", refuse)
    link_files(source, tmp_path / "b")
    assert (tmp_path / "b" / "deep" / "er" / "two").read_text() == "2"
    assert not os.path.samefile(source / "one", tmp_path / "b" / "one")


def test_other_refusals_are_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.link", refuse)
    with pytest.raises(OSError, match="No space"):
        link_files(source, tmp_path / "b")


def test_a_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    link_files(tmp_path / "nothing", tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []
