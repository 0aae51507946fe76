"""The journal's lock and its last line: gone with its holder, whole for the next."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.study import journal
from sweeps.study.journal import JOURNAL, JournalLock, journal_storage

FORK = multiprocessing.get_context("fork")


def study_in(folder: Path) -> optuna.Study:
    return optuna.create_study(storage=journal_storage(folder), study_name="s", load_if_exists=True)


def cut_to_whole_lines(path: Path, content: bytes) -> bytes:
    path.write_bytes(content)
    lock = JournalLock(path)
    assert lock.acquire()
    lock.release()
    return path.read_bytes()


@given(lines=st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b" "))), torn=st.binary(max_size=9))
def test_whoever_has_the_lock_finds_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], torn: bytes
) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    path = tmp_path_factory.mktemp("journal") / JOURNAL
    assert cut_to_whole_lines(path, whole + torn.replace(b"\n", b" ")) == whole


def test_a_torn_line_may_be_longer_than_what_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "TAIL_BYTES", 8)
    for torn in range(25):
        assert cut_to_whole_lines(tmp_path / JOURNAL, b"{}\n" + b"x" * torn) == b"{}\n"
        assert cut_to_whole_lines(tmp_path / JOURNAL, b"x" * torn) == b""


def test_a_journal_is_usable_wherever_its_last_line_was_cut_off(tmp_path: Path) -> None:
    study_in(tmp_path).enqueue_trial({"x": 1.5})
    path = tmp_path / JOURNAL
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for size in range(last, len(whole), 7):
        path.write_bytes(whole[:size])
        study = study_in(tmp_path)
        assert study.get_trials() == []
        study.enqueue_trial({"x": 2.5})
        assert [trial.system_attrs for trial in study_in(tmp_path).get_trials()] == [{"fixed_params": {"x": 2.5}}]


def test_a_driver_goes_on_after_another_has_torn_a_line(tmp_path: Path) -> None:
    ours, theirs = study_in(tmp_path), study_in(tmp_path)
    ours.enqueue_trial({})
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 4, "worker')
    assert len(theirs.get_trials()) == 1
    theirs.enqueue_trial({})
    ours.enqueue_trial({})
    assert [len(study.get_trials()) for study in (ours, theirs, study_in(tmp_path))] == [3, 3, 3]


def test_opening_makes_folder_and_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    study_in(tmp_path / "a" / "b").enqueue_trial({})
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [JOURNAL]


def test_the_lock_goes_with_the_process_that_has_it(tmp_path: Path) -> None:
    study_in(tmp_path)
    held = FORK.Event()

    def hold() -> None:
        JournalLock(tmp_path / JOURNAL).acquire()
        held.set()
        time.sleep(600)

    holder = FORK.Process(target=hold)
    holder.start()
    assert holder.pid is not None
    try:
        assert held.wait(60)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
    began = time.monotonic()
    study_in(tmp_path).enqueue_trial({})
    assert time.monotonic() - began < 20  # Optuna's own lock would be waited for, for 30 s


def test_two_have_the_lock_one_after_the_other(tmp_path: Path) -> None:
    study_in(tmp_path)
    first, second = JournalLock(tmp_path / JOURNAL), JournalLock(tmp_path / JOURNAL)
    order: list[str] = []

    def take(lock: JournalLock, say: Callable[[], None]) -> None:
        lock.acquire()
        say()
        lock.release()

    first.acquire()
    waiting = threading.Thread(target=take, args=(second, lambda: order.append("second")))
    waiting.start()
    waiting.join(0.1)
    order.append("first")
    first.release()
    waiting.join(60)
    assert order == ["first", "second"]


def test_a_child_that_is_forked_meanwhile_does_not_keep_the_lock(tmp_path: Path) -> None:
    study_in(tmp_path)
    lock = JournalLock(tmp_path / JOURNAL)
    lock.acquire()
    child = FORK.Process(target=time.sleep, args=(600,))
    child.start()
    lock.release()
    try:
        study_in(tmp_path).enqueue_trial({})
    finally:
        child.kill()
        child.join()


def test_without_its_file_there_is_no_lock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        JournalLock(tmp_path / JOURNAL).acquire()
