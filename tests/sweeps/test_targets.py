"""Where a command may write: folders that exist, files, each once, and nothing that is read."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config_errors import ConfigError
from sweeps.targets import check_targets


def refused(targets: dict[str, Path | None], *sources: tuple[str, Path]) -> str:
    with pytest.raises(ConfigError) as raised:
        check_targets(targets, sources)
    return str(raised.value)


def test_new_files_and_files_to_be_replaced_are_well(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x")
    (tmp_path / "source").write_text("x")
    targets = {"--out": tmp_path / "old", "--plot": None, "--csv": tmp_path / "new"}
    check_targets(targets, [("the trace", tmp_path / "source"), ("the policy", tmp_path / "gone")])


def test_a_folder_that_is_not_there_and_what_is_no_file_are_refused() -> None:
    assert refused({"--out": Path("gone/f")}) == "--out: got 'gone/f', expected a file in a folder that exists"
    for path in (Path(), Path(os.devnull)):
        assert refused({"--out": path}) == f"--out: got '{path}', expected a file, new or to be replaced"


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_source_is_refused_under_any_of_its_names(
    link: Callable[[Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, other = Path("source"), Path("other")
    source.write_text("x")
    link(source, other)
    for path in (source, other, Path("..") / tmp_path.name / "source"):
        assert refused({"--out": path}, ("the trace", source)).endswith(", expected another file than the trace")


def test_one_file_is_no_target_of_two_options_though_it_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    new, link = Path("new"), Path("link")
    link.symlink_to(new)
    for other in (new, link):
        told = refused({"--out": new, "--plot": other})
        assert told == f"--plot: got '{other}', expected another file than that of --out"
