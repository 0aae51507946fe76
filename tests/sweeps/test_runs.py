"""Which runs a folder has, and which of them a user means."""

import re
from pathlib import Path

import pytest
from run_folders import everything, make_run

from orchestrator.config_errors import ConfigError
from sweeps.runs import arm_folders, choose, find_runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for key in ("demo/decay/seed-10", "demo/decay/seed-2", "demo/decay/seed-2.old-1", "other/baseline/seed-0"):
        make_run(root / key)
    return root


def test_runs_come_by_name_and_number_each_before_those_moved_aside(runs: Path) -> None:
    keys = ["demo/decay/seed-2", "demo/decay/seed-2.old-1", "demo/decay/seed-10", "other/baseline/seed-0"]
    assert find_runs(runs) == {key: runs / key for key in keys}
    assert [arm.name for arm in sorted(arm_folders(runs))] == ["decay", "baseline"]


def test_what_is_no_run_is_none(runs: Path, tmp_path: Path) -> None:
    before = find_runs(runs)
    (runs / "mlflow.db").touch()
    (runs / "demo" / "comparison.png").touch()
    (runs / "demo" / "decay" / "seed-3").mkdir()
    (runs / "demo" / "decay" / "seed-4").touch()
    for name in ("seed-x", "seed-", "seed-1.old", "seed-1.partial", "backup", ".deleted-seed-1-0", "seed-1\n"):
        make_run(runs / "demo" / "decay" / name)
    make_run(runs / "mlartifacts" / "1" / "2" / "artifacts" / "seed-0")
    make_run(runs / ".hidden" / "decay" / "seed-0")
    assert find_runs(runs) == before


def test_what_lies_behind_a_link_is_none(runs: Path, tmp_path: Path) -> None:
    before = find_runs(runs)
    outside = make_run(tmp_path / "outside" / "arm" / "seed-0")
    (runs / "linked").symlink_to(tmp_path / "outside")
    (runs / "demo" / "linked").symlink_to(outside.parent)
    (runs / "demo" / "decay" / "seed-7").symlink_to(outside)
    assert find_runs(runs) == before


def test_one_file_of_three_is_enough_for_a_run(tmp_path: Path) -> None:
    for number, name in enumerate(("config.yaml", "run.json", "metrics.jsonl", "log.txt")):
        folder = tmp_path / "e" / "a" / f"seed-{number}"
        folder.mkdir(parents=True)
        (folder / name).touch()
    assert list(find_runs(tmp_path)) == ["e/a/seed-0", "e/a/seed-1", "e/a/seed-2"]


def test_an_empty_folder_has_no_runs_and_what_is_no_folder_is_an_error(tmp_path: Path) -> None:
    assert find_runs(tmp_path) == {}
    with pytest.raises(ConfigError, match=r"^--runs: got '.*gone', expected a folder that holds runs \(No such file"):
        find_runs(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"a folder that holds runs \(Not a directory\)$"):
        find_runs(tmp_path / "file")


def test_a_run_is_meant_by_its_name_or_its_path(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "demo/decay/seed-2"
    (tmp_path / "linked").symlink_to(runs)
    monkeypatch.chdir(tmp_path)
    for written in (key, f"{key}/", f"./{key}", f"runs/{key}", f"runs/other/../{key}", str(runs / key)):
        assert choose(written, Path("runs"), find_runs(runs)) == key
    assert choose(f"linked/{key}", Path("linked"), find_runs(runs)) == key
    assert choose(str(runs / key), Path("linked"), find_runs(runs)) == key
    monkeypatch.chdir(runs / "demo")
    assert choose("decay/seed-2", Path(".."), find_runs(runs)) == key


@pytest.mark.parametrize(
    ("written", "proposed"),
    [
        ("demo/decay/seed-1", ["demo/decay/seed-10", "demo/decay/seed-2"]),
        ("decay/seed-2", ["demo/decay/seed-2", "demo/decay/seed-2.old-1"]),
        ("baseline", ["other/baseline/seed-0"]),
        ("runs/demo", ["demo/decay/seed-2", "demo/decay/seed-2.old-1", "demo/decay/seed-10"]),
    ],
)
def test_an_unknown_run_is_an_error_that_proposes_those_like_it(runs: Path, written: str, proposed: list[str]) -> None:
    with pytest.raises(ConfigError, match=rf"^RUN: got '{written}', expected a run in .*; ") as caught:
        choose(written, runs, find_runs(runs))
    for key in proposed:
        assert key in str(caught.value).partition("; ")[2]


@pytest.mark.parametrize("written", ["", ".", "..", "/", "demo", "demo/decay", "../outside", "demo/decay/seed-2/model"])
def test_nothing_but_a_whole_run_can_be_meant(runs: Path, written: str) -> None:
    before = everything(runs)
    with pytest.raises(ConfigError, match=rf"^RUN: got '{re.escape(written)}', expected a run in "):
        choose(written, runs, find_runs(runs))
    assert everything(runs) == before
