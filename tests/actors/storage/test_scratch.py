"""Scratch folders: gone when they are done with, and when their process was killed."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from actors.storage.scratch import scratch_folder

KILLED = """
import os, signal
from actors.storage.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "x").write_text("x")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def age(folder: Path) -> None:
    os.utime(folder, (0, 0))


def test_it_is_gone_afterwards_whatever_happens(place: Path) -> None:
    with pytest.raises(ZeroDivisionError), scratch_folder() as folder:
        (folder / "x").write_text("x")
        assert folder.parent == place
        raise ZeroDivisionError
    assert list(place.iterdir()) == []


def test_those_of_others_that_are_at_work_stay(place: Path) -> None:
    with scratch_folder() as one:
        age(one)
        with scratch_folder() as other:
            assert one.is_dir() and other.is_dir() and one != other


def test_what_a_killed_process_left_is_removed_by_the_next_one(place: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(place)}
    command = [sys.executable, "-c", KILLED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    left = Path(done.stdout.strip())
    assert (left / "x").read_text() == "x"
    with scratch_folder():
        assert left.is_dir()  # it may be about to be locked
    age(left)
    with scratch_folder():
        assert not left.exists()
