"""A run's folder on a disk that is full: what stands there is whole, and the run goes on when there is room."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment_files import changed
from small_disk import fill, small_disk

from orchestrator.config import ExperimentConfig
from orchestrator.run.folder import CONFIG, LOG, METRICS, VERDICT, RunFolder, RunFolderFull
from orchestrator.run.metrics_file import Entry
from orchestrator.run.status import RunStatus


def recorded(path: Path) -> list[int]:
    """The steps of a run folder, line by line."""
    return [json.loads(line)["step"] for line in (path / METRICS).read_text().splitlines()]


def status_of(path: Path) -> RunStatus:
    status = RunStatus.read(path)
    assert status is not None
    return status


@pytest.fixture
def config() -> ExperimentConfig:
    return ExperimentConfig.model_validate(changed({}))


def test_a_file_that_cannot_be_written_is_told_in_one_line_with_what_to_do() -> None:
    full = RunFolderFull(Path("runs/e/metrics.jsonl"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert str(full) == (
        "runs/e/metrics.jsonl cannot be written: No space left on device; make room and go on with --resume"
    )
    other = RunFolderFull(Path("m"), OSError(errno.EIO, os.strerror(errno.EIO)))
    assert str(other) == "m cannot be written: Input/output error; put this right and go on with --resume"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as place:
        yield place


WIDE = {f"area/metric-{number}": number / 7 for number in range(200)}


def write_until_refused(folder: RunFolder) -> tuple[int, Path]:
    """Fill the disk after step 0: (the step that found it full, what fills it)."""
    folder.write_step(0, WIDE)
    ballast = fill(folder.path)
    for step in range(1, 100):
        try:
            folder.write_step(step, WIDE)
        except RunFolderFull:
            return step, ballast
    raise AssertionError("the disk took everything")


def test_a_run_that_fills_the_disk_ends_with_whole_lines_and_goes_on_when_there_is_room(
    disk: Path, config: ExperimentConfig
) -> None:
    path = disk / "run"
    with (
        pytest.raises(RunFolderFull, match=r"^\S+/metrics.jsonl cannot be written: No space left on device; make room"),
        RunFolder.create(path, config, seed=0) as folder,
    ):
        refused, ballast = write_until_refused(folder)
        folder.write_step(refused, WIDE)
    assert recorded(path) == list(range(refused))
    assert status_of(path).status == "running"  # there was no room for another word
    ballast.unlink()
    with RunFolder.reopen(path, config, seed=0) as folder:
        assert folder.status.resumes == 1
        assert folder.metrics.ends_with(folder.metrics.position, refused - 1)
        assert folder.write_step(refused, WIDE) is Entry.NEW


def test_a_step_that_was_refused_is_not_the_last_one(disk: Path, config: ExperimentConfig) -> None:
    with RunFolder.create(disk / "run", config, seed=0) as folder:
        refused, ballast = write_until_refused(folder)
        ballast.unlink()
    assert status_of(disk / "run").last_step == refused - 1


def test_the_log_has_a_gap_on_a_full_disk_and_nothing_else_happens(
    disk: Path, config: ExperimentConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    path = disk / "run"
    with RunFolder.create(path, config, seed=0) as folder:
        folder.log.info("before")
        ballast = fill(disk)
        for number in range(50):
            folder.log.info("line %d: %s", number, 1000 * "x")
        ballast.unlink()
        folder.log.info("after")
        folder.write_step(0, {})
    log = (path / LOG).read_text()
    assert log.count("before") == log.count("after") == 1
    assert log.endswith("after\n")
    assert capsys.readouterr() == ("", "")
    assert status_of(path).status == "finished"


def test_the_log_is_closed_quietly_on_a_disk_that_is_still_full(
    disk: Path, config: ExperimentConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunFolder.create(disk / "run", config, seed=0) as folder:
        fill(disk)
        for number in range(50):
            folder.log.info("line %d: %s", number, 1000 * "x")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", [VERDICT, CONFIG])
def test_what_stands_in_a_file_stays_when_the_disk_refuses_the_next(
    disk: Path, config: ExperimentConfig, name: str
) -> None:
    path = disk / "run"
    with RunFolder.create(path, config, seed=0) as folder:
        folder.write_verdict({"collapsed": False})
        before = (path / name).read_bytes()
        fill(disk)
        detail = 100_000 * "x"
        with pytest.raises(RunFolderFull, match=r"verdict.json cannot be written: No space left"):
            folder.write_verdict({"collapsed": True, "detail": detail})
    if name == CONFIG:
        with pytest.raises(RunFolderFull), RunFolder.reopen(path, config, seed=0):
            pass
    assert (path / name).read_bytes() == before


def test_a_disk_that_finds_only_at_the_end_that_it_is_full_is_told_as_well(
    tmp_path: Path, config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with RunFolder.create(tmp_path / "run", config, seed=0) as folder:
        folder.write_step(0, {})
        assert folder.sync() == folder.metrics.position
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", refuse)
            with pytest.raises(RunFolderFull, match=r"metrics.jsonl cannot be written: .*; make room"):
                folder.sync()
