"""Checkpoints in the background: training waits for the copy only, and is told of what has gone wrong."""

import doctest
import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.messages import SavedFile
from orchestrator.checkpoints import writer as module
from orchestrator.checkpoints.manifest import saved_file
from orchestrator.checkpoints.state import RunState
from orchestrator.checkpoints.store import CheckpointStore
from orchestrator.checkpoints.writer import CheckpointFailed, CheckpointWriter

State = Callable[..., RunState]
Tree = dict[str, Any]
LONG_S = 30.0  # for what takes no time at all


class NotWritten(RuntimeError):
    """As learners tell it."""

    def __init__(self, reason: str, disk_full: bool) -> None:
        super().__init__(f"checkpoint not written: {reason}")
        self.reason, self.disk_full = reason, disk_full


class Lost(RuntimeError):
    """A learner died; has a reason, and is no checkpoint that could not be written."""

    reason = "killed"


class FakeLearners:
    """Write one file at once; `written` waits until it may go on."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.waiting = threading.Event()
        self.saves: list[Path] = []
        self.save_error: Exception | None = None
        self.written_error: Exception | None = None

    def save(self, folder: str) -> None:
        if self.save_error is not None:
            raise self.save_error
        self.saves.append(Path(folder))
        Path(folder).mkdir()
        (Path(folder) / "__0_0.distcp").write_bytes(b"weights" * 100)

    def written(self) -> Sequence[SavedFile]:
        checkpoint = self.saves[-1].parent
        self.waiting.set()
        assert self.may_go_on.wait(LONG_S)
        if self.written_error is not None:
            raise self.written_error
        return [saved_file(checkpoint, "learner/__0_0.distcp")]


class FullStore(CheckpointStore):
    """Its disk has room for the learners' files and none for its own."""

    def commit(self, state: RunState, config: Mapping[str, Any], files: Sequence[SavedFile]) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "state.json")


@pytest.fixture
def learners() -> Iterator[FakeLearners]:
    fake = FakeLearners()
    yield fake
    fake.may_go_on.set()


def steps(store: CheckpointStore) -> list[int]:
    return [size.step for size in store.sizes()]


def hidden(store: CheckpointStore) -> list[str]:
    return [path.name for path in store.folder.iterdir() if path.name.startswith(".")]


def failure_of(work: Callable[[], None]) -> str:
    with pytest.raises(CheckpointFailed) as raised:
        work()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def wait_for_failure(writer: CheckpointWriter) -> str:
    """What `check` says, as a loop that calls it would hear it."""
    for _ in range(int(LONG_S * 100)):
        try:
            writer.check()
        except CheckpointFailed as failed:
            return str(failed)
        time.sleep(0.01)
    raise AssertionError("no failure")


def test_the_examples_in_the_docstrings_are_right() -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_training_goes_on_while_the_learners_write(
    store: CheckpointStore, learners: FakeLearners, make_state: State, config: Tree
) -> None:
    saved: list[tuple[int, Path, float]] = []
    learners.may_go_on.clear()
    with CheckpointWriter(store, learners, on_saved=lambda *told: saved.append(told)) as writer:
        writer.begin(make_state(40), config)
        writer.check()
        assert (steps(store), saved) == ([], [])
        assert learners.waiting.wait(LONG_S)
        learners.may_go_on.set()
    assert steps(store) == [40]
    [(step, path, seconds)] = saved
    assert (step, path) == (40, store.folder / "step-000040")
    assert 0 < seconds < LONG_S
    checkpoint = store.newest(lambda *_: None)
    assert checkpoint is not None and checkpoint.state == make_state(40)


def test_the_learners_get_a_folder_that_they_find_from_wherever_they_are(
    tmp_path: Path, learners: FakeLearners, make_state: State, config: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with CheckpointWriter(CheckpointStore(Path("checkpoints"), keep=1), learners) as writer:
        writer.begin(make_state(40), config)
    assert learners.saves == [tmp_path / "checkpoints" / ".step-000040.partial" / "learner"]


def test_the_next_one_waits_for_the_one_before(
    store: CheckpointStore, learners: FakeLearners, make_state: State, config: Tree
) -> None:
    learners.may_go_on.clear()
    with CheckpointWriter(store, learners) as writer:
        writer.begin(make_state(40), config)
        assert learners.waiting.wait(LONG_S)
        threading.Timer(0.05, learners.may_go_on.set).start()
        writer.begin(make_state(60), config)
        assert 40 in steps(store)
        writer.finish()
        assert steps(store) == [40, 60]
        writer.finish()
    assert hidden(store) == []


@pytest.mark.parametrize(
    "error", [NotWritten("No space left on device", True), NotWritten("rank 1: Permission denied", False)]
)
def test_what_the_learners_could_not_write_is_told_once(
    store: CheckpointStore, learners: FakeLearners, make_state: State, config: Tree, error: NotWritten
) -> None:
    cure = "make room" if error.disk_full else "put this right"
    with CheckpointWriter(store, learners) as writer:
        writer.begin(make_state(40), config)
        writer.finish()
        learners.written_error = error
        writer.begin(make_state(80), config)
        assert wait_for_failure(writer) == (
            f"the checkpoint of step 80 could not be written to {store.folder}: {error.reason}; "
            f"the last good one is that of step 40: {cure} and go on with --resume"
        )
        writer.check()
        assert (steps(store), hidden(store)) == ([40], [])
        learners.written_error = None
        writer.begin(make_state(80), config)
    assert steps(store) == [40, 80]


def test_a_failure_that_nobody_asked_for_comes_out_at_the_next_begin_and_at_the_end(
    store: CheckpointStore, learners: FakeLearners, make_state: State, config: Tree
) -> None:
    learners.written_error = NotWritten("Input/output error", False)
    said = (
        f"the checkpoint of step 40 could not be written to {store.folder}: Input/output error; "
        "there is none before it: put this right and go on with --resume, from the first step"
    )
    with CheckpointWriter(store, learners) as writer:
        writer.begin(make_state(40), config)
        assert failure_of(lambda: writer.begin(make_state(80), config)) == said
    with pytest.raises(CheckpointFailed) as raised, CheckpointWriter(store, learners) as writer:
        writer.begin(make_state(40), config)
    assert str(raised.value) == said
    assert raised.value.__cause__ is learners.written_error


def test_what_the_learners_refuse_at_once_is_told_at_once(
    store: CheckpointStore, learners: FakeLearners, make_state: State, config: Tree
) -> None:
    learners.save_error = NotWritten("Read-only file system", False)
    with CheckpointWriter(store, learners) as writer:
        assert "step 40 could not be written" in failure_of(lambda: writer.begin(make_state(40), config))
        assert hidden(store) == []


@pytest.mark.parametrize("error", [Lost("learner-1 was lost"), ConnectionError("reset"), KeyError("x")])
def test_any_other_error_of_the_learners_stays_what_it_is(
    store: CheckpointStore, learners: FakeLearners, make_state: State, config: Tree, error: Exception
) -> None:
    with CheckpointWriter(store, learners) as writer:
        learners.save_error = error
        with pytest.raises(type(error)) as raised:
            writer.begin(make_state(40), config)
        assert raised.value is error
        learners.save_error, learners.written_error = None, error
        writer.begin(make_state(40), config)
        with pytest.raises(type(error)) as raised:
            writer.finish()
        assert raised.value is error
    assert (steps(store), hidden(store)) == ([], [])


def test_a_full_disk_at_the_drivers_own_files_is_told(
    tmp_path: Path, learners: FakeLearners, make_state: State, config: Tree
) -> None:
    store = FullStore(tmp_path, keep=3)
    with CheckpointWriter(store, learners) as writer:
        writer.begin(make_state(40), config)
        assert wait_for_failure(writer) == (
            f"the checkpoint of step 40 could not be written to {tmp_path}: No space left on device; "
            "there is none before it: make room and go on with --resume, from the first step"
        )
    assert hidden(store) == []


def test_a_folder_that_cannot_be_made_is_told(
    tmp_path: Path, learners: FakeLearners, make_state: State, config: Tree
) -> None:
    (tmp_path / "run").touch()
    writer = CheckpointWriter(CheckpointStore(tmp_path / "run" / "checkpoints", keep=3), learners)
    assert ": Not a directory; there is none" in failure_of(lambda: writer.begin(make_state(40), config))


def test_files_that_are_not_what_the_learners_say_are_told(
    store: CheckpointStore, learners: FakeLearners, make_state: State, config: Tree
) -> None:
    learners.may_go_on.clear()
    with CheckpointWriter(store, learners) as writer:
        writer.begin(make_state(40), config)
        (learners.saves[-1] / "__1_0.distcp").touch()
        learners.may_go_on.set()
        said = failure_of(writer.finish)
    assert f"{store.folder}: learner/__1_0.distcp: is no part of the checkpoint; there" in said


def test_an_abandoned_one_leaves_nothing_and_disturbs_nobody(
    store: CheckpointStore, learners: FakeLearners, make_state: State, config: Tree
) -> None:
    with CheckpointWriter(store, learners) as writer:
        writer.begin(make_state(20), config)
        writer.finish()
        learners.waiting.clear()
        learners.may_go_on.clear()
        writer.begin(make_state(40), config)
        assert learners.waiting.wait(LONG_S)
        writer.abandon()
        writer.abandon()
        assert (steps(store), hidden(store)) == ([20], [])

        others = FakeLearners()  # of the gang that came after; the old wait is still going on
        again = CheckpointWriter(store, others)
        again.begin(make_state(40, cursor=7), config)
        again.finish()
        learners.written_error = Lost("learner-0 was lost")
        learners.may_go_on.set()
        writer.check()
        writer.finish()
    checkpoint = store.newest(lambda *_: None)
    assert checkpoint is not None and checkpoint.state.cursor == 7


def test_an_abandoned_wait_that_succeeds_or_fails_late_does_not_touch_the_next_one(
    store: CheckpointStore, learners: FakeLearners, make_state: State, config: Tree
) -> None:
    for late in (None, Lost("learner-0 was lost")):
        threads = threading.active_count()
        learners.waiting.clear()
        learners.may_go_on.clear()
        writer = CheckpointWriter(store, learners)
        writer.begin(make_state(40), config)
        assert learners.waiting.wait(LONG_S)
        writer.abandon()
        partial = store.begin(40)
        learners.save(str(partial / "learner"))
        learners.written_error = late
        learners.may_go_on.set()
        until = time.monotonic() + LONG_S
        while threading.active_count() > threads and time.monotonic() < until:
            time.sleep(0.001)
        assert threading.active_count() == threads
        assert partial.is_dir() and steps(store) == []
        store.discard(40)
        learners.written_error = None


def test_one_that_is_being_completed_when_it_is_abandoned_is_completed(
    tmp_path: Path, learners: FakeLearners, make_state: State, config: Tree
) -> None:
    committing = threading.Event()

    class SlowStore(CheckpointStore):
        def commit(self, state: RunState, config: Mapping[str, Any], files: Sequence[SavedFile]) -> Path:
            committing.set()
            time.sleep(0.05)
            return super().commit(state, config, files)

    store = SlowStore(tmp_path, keep=3)
    with CheckpointWriter(store, learners) as writer:
        writer.begin(make_state(40), config)
        assert committing.wait(LONG_S)
        writer.abandon()
        assert steps(store) == [40]


def test_the_end_after_an_error_waits_for_a_while_and_the_error_stays(
    store: CheckpointStore, learners: FakeLearners, make_state: State, config: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.1)
    learners.may_go_on.clear()
    started = time.perf_counter()
    with pytest.raises(Lost, match="rollout-0"), CheckpointWriter(store, learners) as writer:
        writer.begin(make_state(40), config)
        raise Lost("rollout-0 was lost")
    assert 0.1 <= time.perf_counter() - started < LONG_S / 2
    assert (steps(store), hidden(store)) == ([], [])


def test_what_is_nearly_done_when_a_run_fails_is_kept(
    store: CheckpointStore, learners: FakeLearners, make_state: State, config: Tree
) -> None:
    learners.may_go_on.clear()
    with pytest.raises(Lost, match="rollout-0"), CheckpointWriter(store, learners) as writer:
        writer.begin(make_state(40), config)
        threading.Timer(0.05, learners.may_go_on.set).start()
        raise Lost("rollout-0 was lost")
    assert steps(store) == [40]


def test_a_failure_in_the_background_does_not_mask_the_error_that_ended_the_run(
    store: CheckpointStore, learners: FakeLearners, make_state: State, config: Tree
) -> None:
    learners.written_error = NotWritten("No space left on device", True)
    with pytest.raises(Lost, match="rollout-0"), CheckpointWriter(store, learners) as writer:
        writer.begin(make_state(40), config)
        raise Lost("rollout-0 was lost")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full_leaves_the_last_good_one_and_room_again(
    small_disk: Path, learners: FakeLearners, make_state: State, config: Tree
) -> None:
    store = CheckpointStore(small_disk / "checkpoints", keep=3)
    with CheckpointWriter(store, learners) as writer:
        writer.begin(make_state(40), config)
        writer.finish()
        learners.may_go_on.clear()
        writer.begin(make_state(80), config)
        filled = learners.saves[-1] / "__0_0.distcp"
        with pytest.raises(OSError, match="No space left"), filled.open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        learners.may_go_on.set()
        assert wait_for_failure(writer) == (
            f"the checkpoint of step 80 could not be written to {store.folder}: No space left on device; "
            "the last good one is that of step 40: make room and go on with --resume"
        )
        found = store.newest(lambda *_: None)
        assert found is not None and found.state.step == 40
        writer.begin(make_state(80), config)
    assert steps(store) == [40, 80]
