"""run.json: read as written, replaced in one go, and told apart from anything else."""

import json
import os
import re
import socket
import threading
from dataclasses import FrozenInstanceError, asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.run.status import STATUS, RunStatus

BEGUN = RunStatus.begin()


def test_a_run_begins_in_this_process_with_an_identity_of_its_own() -> None:
    other = RunStatus.begin()
    assert (BEGUN.status, BEGUN.pid, BEGUN.host) == ("running", os.getpid(), socket.gethostname())
    assert (BEGUN.ended, BEGUN.resumes, BEGUN.last_step, BEGUN.mlflow_run_id, BEGUN.detail) == (
        None,
        0,
        None,
        None,
        None,
    )
    assert re.fullmatch("[0-9a-f]{32}", BEGUN.uid)
    assert BEGUN.uid != other.uid


def test_times_are_utc_to_the_second() -> None:
    assert BEGUN.started.endswith("Z")
    assert datetime.now(UTC) - datetime.fromisoformat(RunStatus.begin().started) < timedelta(seconds=5)


def test_a_resumed_run_is_the_same_run_once_more() -> None:
    ended = replace(BEGUN, pid=1, host="elsewhere", last_step=12, mlflow_run_id="ab").end("failed", "it fell over")
    resumed = RunStatus.begin(ended)
    assert resumed == replace(BEGUN, last_step=12, mlflow_run_id="ab", resumes=1)
    assert RunStatus.begin(resumed).resumes == 2


def test_an_end_has_a_time_and_one_line_that_a_terminal_can_show() -> None:
    ended = BEGUN.end("failed", "lost:\n  \x1b[31mlearner-0\x1b[0m\x07")
    assert (ended.status, ended.detail) == ("failed", "lost: [31mlearner-0[0m")
    assert ended.ended is not None and ended.ended >= ended.started
    assert BEGUN.end("finished").detail is None
    assert BEGUN.end("failed", "x" * 501).detail == "x" * 497 + "..."
    with pytest.raises(FrozenInstanceError):
        ended.status = "running"  # type: ignore[misc]


def test_a_folder_without_it_has_none(tmp_path: Path) -> None:
    assert RunStatus.read(tmp_path) is None
    assert RunStatus.read(tmp_path / "gone") is None


@given(
    step=st.none() | st.integers(0, 2**40),
    resumes=st.integers(0, 99),
    text=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, step: int | None, resumes: int, text: str | None
) -> None:
    folder = tmp_path_factory.mktemp("run")
    status = replace(BEGUN, last_step=step, resumes=resumes, mlflow_run_id=text, detail=text)
    for written in (status, status.end("collapsed", text)):
        written.write(folder)
        assert RunStatus.read(folder) == written
    assert [path.name for path in folder.iterdir()] == [STATUS]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"status": "gone"}, "status: got 'gone', expected 'running', 'finished', 'collapsed', 'stopped', 'failed' or"),
        ({"uid": MISSING}, "uid: expected a value: it is missing"),
        ({"uid": "abc"}, "uid: got 'abc', expected text that matches ^[0-9a-f]{32}$"),
        ({"pid": 0}, "pid: got 0, expected greater than or equal to 1"),
        ({"pid": "12"}, "pid: got '12', expected a valid integer"),
        ({"resumes": -1}, "resumes: got -1, expected greater than or equal to 0"),
        ({"last_step": 1.5}, "last_step: got 1.5, expected a valid integer"),
        ({"started": "yesterday"}, "started: got 'yesterday', expected text that matches ^"),
        ({"ended": 5}, "ended: got 5, expected a valid string"),
        ({"colour": "red"}, "colour: got 'red', expected "),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    tree = {key: value for key, value in {**asdict(BEGUN), **changes}.items() if value is not MISSING}
    (tmp_path / STATUS).write_text(json.dumps(tree))
    with pytest.raises(ConfigError) as caught:
        RunStatus.read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / STATUS}: {told}")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"null", b"\xff\xfe", b'{"status": "running"'])
def test_a_file_of_something_else_is_an_error_of_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATUS).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(tmp_path / STATUS))}: .*expected a run's state \(.+\)$"):
        RunStatus.read(tmp_path)


def test_a_file_that_cannot_be_read_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / STATUS).mkdir()
    with pytest.raises(ConfigError, match=r"expected a readable file \(Is a directory\)$"):
        RunStatus.read(tmp_path)


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        BEGUN.write(tmp_path / "gone")
    (tmp_path / STATUS).mkdir()
    with pytest.raises(OSError, match="directory"):
        BEGUN.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [STATUS]


def test_a_reader_never_sees_half_of_it(tmp_path: Path) -> None:
    BEGUN.write(tmp_path)
    seen: list[int | None] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            status = RunStatus.read(tmp_path)
            seen.append(status.last_step if status else -1)

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(100):
        replace(BEGUN, last_step=step, detail="x" * 5000 * (step % 2)).write(tmp_path)
    over.set()
    reader.join()
    assert -1 not in seen
    assert len(seen) > 10
