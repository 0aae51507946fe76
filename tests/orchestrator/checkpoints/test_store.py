"""The store of checkpoints: whole or not there, whenever the writer dies; the newest few kept, bad ones passed over."""

import errno
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from actors.messages import SavedFile
from orchestrator.checkpoints.fingerprint import fingerprint
from orchestrator.checkpoints.manifest import CheckpointDamaged, sizes_below
from orchestrator.checkpoints.state import RunState
from orchestrator.checkpoints.store import CheckpointStore

Write = Callable[..., Path]
TOUCHING = {"open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.scandir"}  # audit events of the disk


def refuse(path: Path, reason: str) -> None:
    raise AssertionError(f"{path} was passed over: {reason}")


def names(store: CheckpointStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def steps(store: CheckpointStore) -> list[int]:
    return [size.step for size in store.sizes()]


def flip(path: Path) -> None:
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def in_child(work: Callable[[], None], kill_after_s: float | None = None) -> int:
    """Do something in a process of its own; its exit status, 0 when it came to its end."""
    if (child := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(3)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dies_at(event: int) -> None:
    """End this process at once when it is about to touch the disk for the n-th time from now."""
    seen = 0

    def hook(name: str, _: Any) -> None:
        nonlocal seen
        seen += name in TOUCHING
        if seen > event:
            os._exit(9)

    sys.addaudithook(hook)


def test_what_was_committed_is_read_back(
    store: CheckpointStore, write: Write, make_state: Callable[..., RunState], config: dict[str, Any]
) -> None:
    path = write(store, 40, 656)
    checkpoint = store.newest(refuse)
    assert checkpoint is not None
    assert (checkpoint.path, checkpoint.state, checkpoint.config) == (path, make_state(40, 656), config)
    assert checkpoint.manifest.fingerprint == fingerprint(config)
    assert path == store.folder / "step-000040"
    assert names(store) == ["step-000040"]


def test_where_nothing_is_there_is_no_checkpoint(store: CheckpointStore) -> None:
    assert store.newest(refuse) is None
    assert store.sizes() == []
    assert not store.folder.exists()


def test_a_partial_folder_is_no_checkpoint_and_goes_with_the_next_one(store: CheckpointStore, write: Write) -> None:
    write(store, 20)
    partial = store.begin(40)
    (partial / "learner").mkdir()
    (partial / "learner" / "left").touch()
    assert partial.name == ".step-000040.partial"
    assert steps(store) == [20]
    assert list(store.begin(40).iterdir()) == []
    assert list(store.begin(60).iterdir()) == []
    assert names(store) == [".step-000060.partial", "step-000020"]
    store.discard(60)
    store.discard(60)
    assert names(store) == ["step-000020"]


@pytest.mark.parametrize(("keep", "left"), [(1, [50]), (2, [40, 50]), (9, [10, 20, 30, 40, 50]), (None, None)])
def test_the_newest_few_are_kept(tmp_path: Path, write: Write, keep: int | None, left: list[int] | None) -> None:
    store = CheckpointStore(tmp_path, keep)
    for step in range(10, 60, 10):
        write(store, step)
    assert steps(store) == (left or [10, 20, 30, 40, 50])
    assert names(store) == [f"step-{step:06d}" for step in steps(store)]


def test_steps_beyond_six_digits_come_after_the_others(tmp_path: Path, write: Write) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (999_999, 1_000_000, 2_000_000):
        write(store, step)
    assert steps(store) == [1_000_000, 2_000_000]


def test_one_of_the_same_step_is_replaced(store: CheckpointStore, write: Write) -> None:
    for cursor in (1, 2):
        write(store, 40, cursor)
    checkpoint = store.newest(refuse)
    assert checkpoint is not None and checkpoint.state.cursor == 2
    assert names(store) == ["step-000040"]


def test_a_run_that_was_taken_back_gets_rid_of_its_former_future(tmp_path: Path, write: Write) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    for step in (20, 40, 60):
        write(CheckpointStore(tmp_path, keep=None), step)
    flip(tmp_path / "step-000060" / "state.json")
    write(store, 40, 7)
    assert steps(store) == [40]
    checkpoint = store.newest(refuse)
    assert checkpoint is not None and checkpoint.state.cursor == 7


def test_damaged_ones_are_told_and_passed_over(store: CheckpointStore, write: Write) -> None:
    for step in (20, 40, 60):
        write(store, step)
    flip(store.folder / "step-000060" / "learner" / "__1_0.distcp")
    (store.folder / "step-000040" / "config.yaml").unlink()
    told: list[tuple[str, str]] = []
    checkpoint = store.newest(lambda path, reason: told.append((path.name, reason)))
    assert checkpoint is not None and checkpoint.state.step == 20
    assert told == [
        ("step-000060", "learner/__1_0.distcp: its content has changed (sha256)"),
        ("step-000040", "config.yaml: is missing"),
    ]
    flip(store.folder / "step-000020" / "manifest.json")
    assert store.newest(lambda path, reason: told.append((path.name, reason))) is None
    assert told[-1] == ("step-000020", "manifest.json: its content has changed (sha256)")


def test_the_newest_before_a_step_can_be_asked_for(store: CheckpointStore, write: Write) -> None:
    for step in (20, 40, 60):
        write(store, step)
    for before, found in ((61, 60), (60, 40), (40, 20)):
        checkpoint = store.newest(refuse, before)
        assert checkpoint is not None and checkpoint.state.step == found
    assert store.newest(refuse, before=20) is None


def test_a_folder_under_the_name_of_another_step_is_not_used(store: CheckpointStore, write: Write) -> None:
    write(store, 40).rename(store.folder / "step-000080")
    told: list[str] = []
    assert store.newest(lambda _, reason: told.append(reason)) is None
    assert told == ["state.json: is of step 40, the folder's name says 80"]


@pytest.mark.parametrize("name", ["step-40", "step-0000000x", "notes", ".step-000099.partial", ".step-000099.removed"])
def test_other_folders_are_no_checkpoints(store: CheckpointStore, write: Write, name: str) -> None:
    write(store, 20)
    (store.folder / name).mkdir()
    (store.folder / "step-000090").touch()
    assert steps(store) == [20]
    assert store.newest(refuse) is not None


def test_a_state_that_another_program_wrote_is_damage(
    store: CheckpointStore, make_state: Callable[..., RunState], config: dict[str, Any]
) -> None:
    class OtherState(RunState):
        def to_json(self) -> str:
            return json.dumps({"step": 40})

    store.begin(40)
    fields = {name: getattr(make_state(40), name) for name in RunState.__slots__}
    store.commit(OtherState(**fields), config, [])
    told: list[str] = []
    assert store.newest(lambda _, reason: told.append(reason)) is None
    assert told == ["state.json: weight_version: is missing"]


def test_a_listing_says_what_is_there_and_how_large(store: CheckpointStore, write: Write) -> None:
    paths = [write(store, step) for step in (40, 100)]
    assert [(size.step, size.path) for size in store.sizes()] == [(40, paths[0]), (100, paths[1])]
    assert [size.num_bytes for size in store.sizes()] == [sum(sizes_below(path).values()) for path in paths]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda partial: os.truncate(partial / "learner/__0_0.distcp", 1024), "1,024 bytes instead of 7,340"),
        (lambda partial: (partial / "learner/__0_0.distcp").unlink(), "learner/__0_0.distcp: is missing"),
        (lambda partial: (partial / "learner/x").touch(), "learner/x: is no part of the checkpoint"),
    ],
)
def test_files_that_are_not_what_the_learners_say_are_not_committed(
    store: CheckpointStore,
    make_state: Callable[..., RunState],
    make_files: Callable[..., list[SavedFile]],
    spoil: Callable[[Path], None],
    said: str,
) -> None:
    partial = store.begin(40)
    files = make_files(partial)
    spoil(partial)
    with pytest.raises(CheckpointDamaged, match=said):
        store.commit(make_state(40), {}, files)
    assert steps(store) == []


def test_every_file_and_folder_is_synced_before_the_name_counts(
    store: CheckpointStore, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    real = os.fsync

    def fsync(opened: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{opened}"), (store.folder / "step-000040").exists()))
        real(opened)

    monkeypatch.setattr(os, "fsync", fsync)
    path = write(store, 40)
    partial = store.folder / ".step-000040.partial"
    before = {Path(name) for name, in_place in synced if not in_place}
    assert before == {partial, partial / "learner", *(partial / name for name in sizes_below(path))}
    assert [Path(name) for name, in_place in synced if in_place] == [store.folder, store.folder.parent]


def test_a_disk_that_fails_at_the_sync_leaves_the_ones_before(
    store: CheckpointStore, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, 20)

    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        write(store, 40)
    assert steps(store) == [20]


def test_what_cannot_be_removed_is_no_reason_to_fail(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    write(store, 20)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EBUSY, "busy")))
        write(store, 40)
    assert names(store) == [".step-000020.removed", "step-000040"]
    write(store, 60)
    assert names(store) == ["step-000060"]


def before_and_after(folder: Path, write: Write, step: int) -> Iterator[tuple[CheckpointStore, int]]:
    """For every moment at which writing step `step` touches the disk: the store after a death then, and its status."""
    template = folder / "template"
    for earlier in (20, 40):
        write(CheckpointStore(template, keep=None), earlier, 1)
    for event in range(1000):
        store = CheckpointStore(folder / "at", keep=1)
        shutil.copytree(template, store.folder)

        def work(store: CheckpointStore = store, event: int = event) -> None:
            dies_at(event)
            write(store, step, 2)

        status = in_child(work)
        assert status in (0, 9)
        yield store, status
        if status == 0:
            assert event > 30  # there were many moments to die at
            return
        shutil.rmtree(store.folder)


@pytest.mark.parametrize("step", [60, 40], ids=["a new one", "one that replaces another"])
def test_whenever_the_writer_dies_the_newest_one_is_whole(
    tmp_path: Path, write: Write, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # takes most of the time; a process that dies loses no writes
    found = set()
    for store, status in before_and_after(tmp_path, write, step):
        checkpoint = store.newest(refuse)
        assert checkpoint is not None
        found.add((status, checkpoint.state.step, checkpoint.state.cursor))
        write(store, 80)  # and whatever was left there is in nobody's way
        assert names(store) == ["step-000080"]
    assert found == {(9, 40, 1), (9, step, 2), (0, step, 2)}


def test_a_writer_killed_at_random_leaves_whole_ones_only(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    rng, last = Random(0), 0
    store = CheckpointStore(tmp_path, keep=2)
    started = time.perf_counter()
    write(store, 0)
    one_s = time.perf_counter() - started
    for _ in range(25):

        def work(first: int = last + 1) -> None:
            for step in range(first, first + 100_000):
                write(store, step)

        assert in_child(work, kill_after_s=rng.uniform(0, 10 * one_s)) == -signal.SIGKILL
        checkpoint = store.newest(refuse)
        assert checkpoint is not None and checkpoint.state.step >= last
        last = checkpoint.state.step
    assert last > 10  # it did write in between
