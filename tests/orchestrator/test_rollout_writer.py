"""The rollout writer: whole files or none, errors that end nothing, and a thread whose end is noticed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator import rollout_writer
from orchestrator.rollout_records import SCHEMA, RolloutRow
from orchestrator.rollout_writer import PENDING, RolloutWriter


def row(step: int) -> RolloutRow:
    return RolloutRow(
        step=step,
        split="train",
        problem=7,
        sample=0,
        source="arithmetic",
        prompt="1+1=",
        response="2",
        answer="2",
        extracted="2",
        prompt_token_ids=np.array([5], np.int32),
        response_token_ids=np.array([9], np.int32),
        tokens=("2",),
        train_logprobs=np.array([-0.5], np.float32),
        rollout_logprobs=np.array([-0.25], np.float32),
        score=1.0,
        reward=1.0,
        advantage=0.5,
        error=None,
        finished=True,
        weight_version=step,
    )


def steps_in(path: Path) -> list[int]:
    steps: list[int] = pq.read_table(path).column("step").to_pylist()
    return steps


class Warnings(list[str]):
    """Collects what is told, and from which threads."""

    def __init__(self) -> None:
        super().__init__()
        self.threads = set[int]()

    def __call__(self, text: str) -> None:
        self.append(text)
        self.threads.add(threading.get_ident())


@pytest.fixture
def warnings() -> Iterator[Warnings]:
    """None expected, unless the test takes them out."""
    collected = Warnings()
    yield collected
    assert collected == []


def test_rows_and_what_makes_rows_become_files(tmp_path: Path, warnings: Warnings) -> None:
    folder, threads = tmp_path / "deep" / "rollouts", list[int]()

    def make() -> list[RolloutRow]:
        threads.append(threading.get_ident())
        return [row(1), row(2)]

    with RolloutWriter(folder, warnings) as writer:
        writer.write("train-0", [row(0)])
        writer.write("train-1", make)
        writer.write("empty", [])
    assert sorted(path.name for path in folder.iterdir()) == ["empty.parquet", "train-0.parquet", "train-1.parquet"]
    assert (steps_in(folder / "train-0.parquet"), steps_in(folder / "train-1.parquet")) == ([0], [1, 2])
    assert pq.read_schema(folder / "empty.parquet").equals(SCHEMA)
    assert threads != [threading.get_ident()]
    assert writer.failed == 0


def test_a_file_of_the_same_name_is_replaced(tmp_path: Path, warnings: Warnings) -> None:
    with RolloutWriter(tmp_path, warnings) as writer:
        for step in range(3):
            writer.write("train", [row(step)])
    assert steps_in(tmp_path / "train.parquet") == [2]


def test_what_an_earlier_writer_left_unfinished_is_removed(tmp_path: Path, warnings: Warnings) -> None:
    (tmp_path / ".train-3.parquet.partial").write_bytes(b"PAR1")
    (tmp_path / "train-2.parquet").write_bytes(b"kept")
    RolloutWriter(tmp_path, warnings).close()
    assert [path.name for path in tmp_path.iterdir()] == ["train-2.parquet"]


def test_handing_over_waits_only_while_the_queue_is_full(tmp_path: Path, warnings: Warnings) -> None:
    go = threading.Event()

    def slow() -> list[RolloutRow]:
        go.wait()
        return [row(0)]

    with RolloutWriter(tmp_path, warnings) as writer:
        started = time.monotonic()
        for number in range(PENDING + 1):  # one of them in the thread's hands
            writer.write(f"train-{number}", slow)
        assert time.monotonic() - started < 0.5
        threading.Timer(0.3, go.set).start()
        writer.write("last", slow)
        assert time.monotonic() - started > 0.3, "the queue was full: nothing may be dropped"
    assert len(list(tmp_path.iterdir())) == PENDING + 2


def test_closing_waits_and_may_be_repeated_and_then_nothing_is_taken(tmp_path: Path, warnings: Warnings) -> None:
    writer = RolloutWriter(tmp_path, warnings)
    writer.write("train", lambda: time.sleep(0.2) or [row(0)])
    writer.close()
    assert (tmp_path / "train.parquet").exists()
    writer.close()
    with pytest.raises(ValueError, match="late: the rollout writer is closed"):
        writer.write("late", [row(1)])


def test_a_folder_that_cannot_be_made_is_told_once_and_counted(tmp_path: Path) -> None:
    (tmp_path / "rollouts").write_text("a file")
    warnings = Warnings()
    with RolloutWriter(tmp_path / "rollouts", warnings) as writer:
        for number in range(3):
            writer.write(f"train-{number}", [row(number)])
    assert writer.failed == 3
    path = tmp_path / "rollouts" / "train-0.parquet"
    rest = "; further files that this keeps from being written are counted only"
    assert warnings == [f"rollouts not written to {path}: File exists{rest}"]
    assert threading.get_ident() not in warnings.threads


def test_a_full_disk_costs_the_file_and_nothing_else(tmp_path: Path) -> None:
    warnings, ready = Warnings(), threading.Event()
    partial = tmp_path / ".full.parquet.partial"

    def make() -> list[RolloutRow]:
        partial.symlink_to("/dev/full")  # every byte written there fails for want of room
        ready.set()
        return [row(0)]

    with RolloutWriter(tmp_path, warnings) as writer:
        writer.write("full", make)
        assert ready.wait(10)
        writer.write("train", [row(1)])
    assert [path.name for path in tmp_path.iterdir()] == ["train.parquet"]
    assert writer.failed == 1
    assert len(warnings) == 1
    assert "full.parquet: No space left on device" in warnings[0]


def test_rows_that_cannot_be_made_or_converted_are_told_by_cause(tmp_path: Path) -> None:
    warnings = Warnings()

    def broken() -> list[RolloutRow]:
        raise RuntimeError("no tokenizer\nat all")

    def short() -> list[RolloutRow]:
        return [RolloutRow(**{**{name: getattr(row(0), name) for name in SCHEMA.names}, "tokens": ()})]

    with RolloutWriter(tmp_path, warnings) as writer:
        for number, rows in enumerate([broken, short, broken, short]):
            writer.write(f"train-{number}", rows)
        writer.write("good", [row(0)])
    assert writer.failed == 4
    assert [path.name for path in tmp_path.iterdir()] == ["good.parquet"]
    assert [text.partition(": ")[2].partition(";")[0] for text in warnings] == [
        "RuntimeError: no tokenizer at all",
        "ValueError: row 0: tokens: got 0 values, expected as many as response_token_ids has (1)",
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_noticed_and_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_writer, "LOOK_AGAIN_S", 0.05)
    warnings, go = Warnings(), threading.Event()

    def deadly() -> list[RolloutRow]:
        go.wait()
        raise SystemExit

    with RolloutWriter(tmp_path, warnings) as writer:
        writer.write("deadly", deadly)
        time.sleep(0.05)
        for number in range(PENDING):
            writer.write(f"waiting-{number}", [row(number)])
        go.set()
        writer.write("after", [row(0)])
    assert writer.failed == PENDING + 1
    assert len(warnings) == 1
    assert "the thread that writes has ended" in warnings[0]


def test_an_interrupt_while_waiting_leaves_whole_files_and_a_writer_that_can_be_closed(tmp_path: Path) -> None:
    warnings, go = Warnings(), threading.Event()

    def slow() -> list[RolloutRow]:
        go.wait()
        return [row(0)]

    writer = RolloutWriter(tmp_path, warnings)
    for number in range(PENDING + 1):
        writer.write(f"train-{number}", slow)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        writer.write("last", slow)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        writer.close()
    go.set()
    writer.close()
    assert [steps_in(path) for path in tmp_path.iterdir()] == [[0]] * (PENDING + 1)
    assert warnings == []


KILLED = """
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from orchestrator.rollout_writer import RolloutWriter
from test_rollout_writer import row

noise = np.random.default_rng(0).random((500, 2000), np.float32)
long = dict(response_token_ids=np.arange(2000, dtype=np.int32), tokens=("x",) * 2000)
rows = [replace(row(i), train_logprobs=noise[i], rollout_logprobs=noise[i], **long) for i in range(500)]
with RolloutWriter(Path(sys.argv[1]), print) as writer:
    for number in range(10**6):
        writer.write("train", rows)
"""


MEGABYTE = 1_000_000  # less than half of such a file


def test_a_process_that_is_killed_in_the_middle_of_a_file_leaves_the_one_before(tmp_path: Path) -> None:
    here, path = Path(__file__).parent, tmp_path / "train.parquet"
    environment = {**os.environ, "PYTHONPATH": f"{here.parents[1]}{os.pathsep}{here}"}
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not path.exists() or not any(0 < size < MEGABYTE for size in sizes_in(tmp_path)):  # in the middle of one
            assert child.poll() is None
            assert time.monotonic() < deadline
    finally:
        child.kill()
        child.wait()
    assert steps_in(path) == list(range(500))


def sizes_in(folder: Path) -> list[int]:
    sizes = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # renamed just now
            sizes.append(path.stat().st_size)
    return sizes
