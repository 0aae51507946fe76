"""Deleting runs: what was meant goes, whole, and nothing else does."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_folders import everything, make_checkpoint, make_run

from orchestrator.config_errors import ConfigError
from orchestrator.run.lock import LOCK, RunInUse, is_locked, run_lock
from sweeps import run_deletion
from sweeps.run_deletion import check_not_in_use, delete_checkpoints, delete_leftover, delete_run, leftovers

KEYS = ("demo/decay/seed-0", "demo/decay/seed-1", "demo/baseline/seed-0")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for key in KEYS:
        make_checkpoint(make_run(root / key), "step-000002")
    return root


def remaining(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.glob("*/*/*"))


def test_a_run_goes_and_the_others_stay(runs: Path) -> None:
    others = everything(runs / "demo" / "baseline"), everything(runs / "demo" / "decay" / "seed-1")
    delete_run(runs / "demo" / "decay" / "seed-0")
    assert remaining(runs) == ["demo/baseline/seed-0", "demo/decay/seed-1"]
    assert (everything(runs / "demo" / "baseline"), everything(runs / "demo" / "decay" / "seed-1")) == others


def test_empty_folders_above_go_too_but_not_the_root(runs: Path) -> None:
    delete_run(runs / "demo" / "baseline" / "seed-0")
    assert [path.name for path in (runs / "demo").iterdir()] == ["decay"]
    for seed in (0, 1):
        delete_run(runs / "demo" / "decay" / f"seed-{seed}")
    assert list(runs.iterdir()) == []


def test_folders_above_that_hold_something_else_stay(runs: Path) -> None:
    (runs / "demo" / "comparison.png").touch()
    for key in KEYS:
        delete_run(runs / key)
    assert list(everything(runs)) == ["demo", "demo/comparison.png"]


def test_a_comparison_that_is_over_keeps_no_folder_by_its_lock(runs: Path) -> None:
    with run_lock(runs / "demo"):
        pass
    for key in KEYS:
        delete_run(runs / key)
    assert list(runs.iterdir()) == []


def test_a_comparison_at_work_keeps_its_folder(runs: Path) -> None:
    with run_lock(runs / "demo"):
        for key in KEYS:
            delete_run(runs / key)
        assert is_locked(runs / "demo")
        with pytest.raises(RunInUse), run_lock(runs / "demo"):
            pass
    assert list(everything(runs)) == ["demo", f"demo/{LOCK}"]


def test_checkpoints_go_and_the_rest_of_the_run_stays(runs: Path) -> None:
    run = runs / KEYS[0]
    make_checkpoint(run, ".step-000004.partial")
    before = {name: content for name, content in everything(run).items() if not name.startswith("checkpoints")}
    delete_checkpoints(run)
    after = everything(run)
    del after[LOCK]
    assert after == before
    delete_checkpoints(run)  # there are none any more


def test_links_go_and_what_they_lead_to_stays(runs: Path, tmp_path: Path) -> None:
    outside = make_run(tmp_path / "outside")
    before = everything(outside)
    for key in KEYS[:2]:
        (runs / key / "model").symlink_to(outside)
        (runs / key / "config").symlink_to(outside / "config.yaml")
    linked = runs / KEYS[2]
    (linked / "checkpoints").rename(tmp_path / "elsewhere")
    (linked / "checkpoints").symlink_to(tmp_path / "elsewhere")
    delete_checkpoints(linked)
    assert (linked / "checkpoints").is_symlink()
    for key in KEYS:
        delete_run(runs / key)
    assert everything(outside) == before
    assert (tmp_path / "elsewhere" / "step-000002" / "manifest.json").exists()
    assert list(runs.iterdir()) == []


def test_a_run_that_is_in_use_stays_as_it_is(runs: Path) -> None:
    run = runs / KEYS[0]
    with run_lock(run):
        before = everything(run)
        for delete in (delete_run, delete_checkpoints, lambda folder: check_not_in_use([folder])):
            with pytest.raises(RunInUse, match="is in use by process"):
                delete(run)
        assert everything(run) == before


def test_asking_whether_runs_are_in_use_makes_nothing(runs: Path) -> None:
    before = everything(runs)
    check_not_in_use(runs / key for key in KEYS)
    assert everything(runs) == before


def test_a_deletion_that_is_interrupted_leaves_no_run_by_half(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path) -> None:
        (path / "config.yaml").unlink(missing_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_deletion.shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        delete_run(runs / KEYS[0])
    with pytest.raises(KeyboardInterrupt):
        delete_checkpoints(runs / KEYS[1])
    monkeypatch.undo()
    assert not (runs / KEYS[0]).exists()
    assert not (runs / KEYS[1] / "checkpoints").exists()
    left = leftovers(runs)
    assert [path.parent for path in left] == [runs / "demo" / "decay", runs / KEYS[1]]
    for path in left:
        delete_leftover(path)
    assert leftovers(runs) == []
    assert remaining(runs) == ["demo/baseline/seed-0", "demo/decay/seed-1"]


def test_what_is_left_over_of_the_last_run_takes_its_folders_with_it(runs: Path) -> None:
    (runs / "gone" / "arm" / f".deleted-seed-3.old-1-{'0' * 32}").mkdir(parents=True)
    [left] = leftovers(runs)
    delete_leftover(left)
    assert not (runs / "gone").exists()


def test_only_what_a_deletion_has_left_is_left_over(runs: Path, tmp_path: Path) -> None:
    arm, hidden = runs / "demo" / "decay", f".deleted-seed-9-{'0' * 32}"
    (arm / ".deleted-seed-9").mkdir()
    (arm / f".deleted-notes-{'0' * 32}").mkdir()
    (runs / hidden).mkdir()
    (arm / hidden).symlink_to(tmp_path)
    assert leftovers(runs) == []


def test_what_another_process_is_deleting_is_not_left_over(runs: Path) -> None:
    hidden = runs / "demo" / "decay" / f".deleted-seed-0-{'0' * 32}"
    with run_lock(runs / KEYS[0]), run_lock(runs / KEYS[1]):
        (runs / KEYS[0]).rename(hidden)
        (runs / KEYS[1] / "checkpoints").rename(runs / KEYS[1] / f".deleted-checkpoints-{'0' * 32}")
        assert leftovers(runs) == []
    assert len(leftovers(runs)) == 2


def test_what_cannot_be_deleted_is_an_error_that_says_why(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs / KEYS[0]

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path / "model"))

    monkeypatch.setattr(run_deletion.shutil, "rmtree", refused)
    with pytest.raises(
        ConfigError, match=r"seed-0: expected a run that can be deleted \(Permission denied: \.deleted-seed"
    ):
        delete_run(run)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB with a run on it and not a byte free."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    make_run(place / "demo" / "decay" / "seed-0")
    with (place / "demo" / "decay" / "seed-0" / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError):
        while True:
            ballast.write(bytes(4096))
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_nobody_from_making_room(full_disk: Path) -> None:
    delete_run(full_disk / "demo" / "decay" / "seed-0")
    assert list(full_disk.iterdir()) == []
