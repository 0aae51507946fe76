"""Metrics as JSON lines: each step once however often it is done, and whole lines whatever the disk does."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_disk import fill as take_room
from small_disk import small_disk

from orchestrator.config_errors import ConfigError
from orchestrator.records import StepRecord
from orchestrator.run.metrics_file import Entry, MetricsFile

NAME = "metrics.jsonl"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / NAME


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def fill(metrics: MetricsFile, num: int, **more: float) -> list[int]:
    """Write steps 0 to num - 1; the positions before each and after the last."""
    positions = [metrics.position]
    for step in range(num):
        assert metrics.write(step, {"reward/mean": step / 8, **more}) is Entry.NEW
        positions.append(metrics.position)
    return positions


def test_a_line_is_in_the_file_when_the_call_is_over_and_ends_at_the_position(path: Path) -> None:
    with MetricsFile(path) as metrics:
        for step in range(3):
            assert metrics.write(step, {"reward/mean": step / 2}) is Entry.NEW
            assert len(steps(path)) == step + 1
            assert metrics.position == path.stat().st_size == metrics.sync()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": step, "reward/mean": step / 2} for step in range(3)
    ]


@pytest.mark.parametrize("torn", ["{", '{"step": 3, "reward/mean": 0.', '{"step": 3}', "\0\0\0"])
def test_a_last_line_that_was_cut_off_is_dropped_at_opening(path: Path, torn: str) -> None:
    with MetricsFile(path) as metrics:
        position = fill(metrics, 3)[-1]
    with path.open("a") as file:
        file.write(torn)
    with MetricsFile(path) as metrics:
        assert metrics.position == path.stat().st_size == position
        assert metrics.write(3, {"reward/mean": 1.0}) is Entry.NEW
    assert steps(path) == [0, 1, 2, 3]


def test_a_file_of_nothing_but_a_torn_line_is_empty_then(path: Path) -> None:
    path.write_text('{"step": 0, "rew')
    with MetricsFile(path) as metrics:
        assert (metrics.position, list(metrics.rows())) == (0, [])


@pytest.mark.parametrize(
    "again",
    [
        {"reward/mean": 0.5, "time/step": 2.0, "throughput/tokens_per_s": 30.0},
        {"reward/mean": 0.5, "time/step": 1.0, "time/evaluate": 9.0},
        {"reward/mean": 0.5},
        {"reward/mean": 0.5 * (1 + 1e-7)},  # a library that adds up in an order of its own
    ],
)
def test_a_step_that_comes_out_as_before_is_the_same_whatever_time_it_took(path: Path, again: dict[str, float]) -> None:
    with MetricsFile(path) as metrics:
        metrics.write(0, {"reward/mean": 0.5, "time/step": 1.0, "throughput/tokens_per_s": 60.0})
        before, position = path.read_bytes(), metrics.position
        metrics.rewind(0)
        assert metrics.write(0, again) is Entry.SAME
        assert metrics.position == position
        assert metrics.write(1, {}) is Entry.NEW
    assert path.read_bytes() == before + b'{"step": 1}\n'


@pytest.mark.parametrize(
    "again",
    [
        {"reward/mean": 0.5001},
        {},
        {"reward/mean": 0.5, "timely": 1.0},
        {"reward/mean": 0.5, "stability/collapsed": 1.0},
        {"reward/max": 0.5},
    ],
)
def test_a_step_that_comes_out_otherwise_takes_its_place_and_all_that_followed_is_dropped(
    path: Path, again: dict[str, float]
) -> None:
    with MetricsFile(path) as metrics:
        metrics.write(0, {})
        position = metrics.position
        for step in (1, 2, 3):
            metrics.write(step, {"reward/mean": 0.5})
        metrics.rewind(position)
        assert metrics.write(1, again) is Entry.REPLACED
        assert path.stat().st_size == metrics.position
        assert metrics.write(2, {"reward/mean": 0.5}) is Entry.NEW
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 0},
        {"step": 1, **again},
        {"step": 2, "reward/mean": 0.5},
    ]


def test_another_step_at_the_same_place_is_not_the_same(path: Path) -> None:
    with MetricsFile(path) as metrics:
        fill(metrics, 2)
        metrics.rewind(0)
        assert metrics.write(1, {"reward/mean": 0.0}) is Entry.REPLACED
    assert steps(path) == [1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_metric_that_is_not_finite_is_an_error_and_changes_nothing(path: Path, value: float) -> None:
    with MetricsFile(path) as metrics:
        positions = fill(metrics, 2)
        metrics.rewind(positions[1])
        before = path.read_bytes()
        with pytest.raises(ValueError, match="not JSON compliant"):
            metrics.write(1, {"gradient/norm": value})
        assert (path.read_bytes(), metrics.position) == (before, positions[1])


@pytest.mark.parametrize("reopens", [True, False], ids=["in another process", "in the same one"])
@given(start=st.integers(0, 6))
def test_doing_all_steps_again_from_any_position_leaves_the_file_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, reopens: bool, start: int
) -> None:
    path = tmp_path_factory.mktemp("run") / NAME
    with MetricsFile(path) as metrics:
        positions = fill(metrics, 6, **{"time/step": 1.0})
        before = path.read_bytes()
        again = MetricsFile(path) if reopens else metrics
        again.rewind(positions[start])
        for step in range(start, 6):
            assert again.write(step, {"reward/mean": step / 8, "time/step": 2.0 + step}) is Entry.SAME
            assert again.position == positions[step + 1]
        again.close()
    assert path.read_bytes() == before


class Model:
    """What a metrics file should hold: a value for each step, from some step on not yet reached again."""

    def __init__(self) -> None:
        self.values: list[int] = []
        self.next = 0

    def write(self, value: int) -> Entry:
        there = self.values[self.next] if self.next < len(self.values) else None
        self.next += 1
        if there == value:
            return Entry.SAME
        self.values[self.next - 1 :] = [value]
        return Entry.NEW if there is None else Entry.REPLACED


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.sampled_from([0, 0, 0, 1])),
            st.tuples(st.just("rewind"), st.integers(0, 8)),
            st.tuples(st.just("reopen"), st.integers(0, 20)),
        ),
        max_size=30,
    )
)
def test_after_any_sequence_of_writes_and_rewinds_every_step_is_there_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("run") / NAME
    metrics, model, positions = MetricsFile(path), Model(), {0: 0}
    for seconds, (action, number) in enumerate(actions):
        if action == "write":
            step = model.next
            entry = metrics.write(step, {"value": number, "time/step": 1.0 + seconds})
            assert entry is model.write(number)
            positions[step + 1] = metrics.position
        elif action == "rewind":
            model.next = min(number, model.next)
            metrics.rewind(positions[model.next])
        else:  # killed in the middle of a line
            metrics.close()
            with path.open("ab") as file:
                file.write(b'{"step": 0, "value": 99}'[:number])
            metrics, model.next = MetricsFile(path), len(model.values)
            positions[model.next] = metrics.position
        assert [row.metrics["value"] for row in metrics.rows()] == model.values
        assert [row.step for row in metrics.rows()] == list(range(len(model.values)))
        assert metrics.ends_with(positions[model.next], model.next - 1)
    metrics.close()


def test_a_position_is_that_of_a_step_only_at_the_end_of_its_line(path: Path) -> None:
    with MetricsFile(path) as metrics:
        positions = fill(metrics, 3)
        found = {
            (position, step)
            for position in range(positions[-1] + 50)
            for step in range(-1, 5)
            if metrics.ends_with(position, step)
        }
        assert found == {(position, step) for step, position in enumerate(positions, start=-1)}
        assert metrics.write(3, {}) is Entry.NEW  # looking has moved nothing


def test_rows_are_the_steps_as_they_were_recorded(path: Path) -> None:
    records = [
        StepRecord(
            step=0, time_ms=1_700_000_000_500, metrics={"reward/mean": 0.1, "time/ended_s": 1_700_000_000.5}, events=()
        ),
        StepRecord(
            step=1,
            time_ms=1_700_000_001_250,
            metrics={
                "scheduler/event/surge": 1.0,
                "scheduler/event/decay": 1.0,
                "scheduler/shadow/a/event/decay": 1.0,
                "time/ended_s": 1_700_000_001.25,
            },
            events=("surge", "decay"),
        ),
    ]
    with MetricsFile(path) as metrics:
        for record in records:
            metrics.write(record.step, record.metrics)
        assert list(metrics.rows()) == records
        assert metrics.write(2, {}) is Entry.NEW  # reading has moved nothing


def test_a_line_that_is_no_object_is_told_with_its_number(path: Path) -> None:
    path.write_text('{"step": 0}\n{"step": 1,\n{"step": 2}\n')
    with MetricsFile(path) as metrics, pytest.raises(ConfigError, match=r"metrics.jsonl: line 2: got "):
        list(metrics.rows())


class FullFile:
    """A file on a disk that takes so many bytes more, and hardly more than one at a time."""

    def __init__(self, file: Any, room: int) -> None:
        self.file = file
        self.room = room

    def write(self, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = data[: min(self.room, 3)]
        self.room -= len(taken)
        return int(self.file.write(taken))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 1, 10, 27])
@pytest.mark.parametrize("again", [False, True], ids=["a new line", "a line in place of another"])
def test_a_line_for_which_there_is_no_room_leaves_whole_lines_and_can_be_written_later(
    path: Path, room: int, again: bool
) -> None:
    with MetricsFile(path) as metrics:
        positions = fill(metrics, 3)
        if again:
            metrics.rewind(positions[2])
        there = 2 if again else 3
        full = FullFile(metrics._file, room)
        metrics._file = full  # type: ignore[assignment]
        for _ in range(2):
            full.room = room
            with pytest.raises(OSError, match="No space left"):
                metrics.write(there, {"reward/mean": 0.123456789})
            assert path.stat().st_size == metrics.position == positions[there]
            assert steps(path) == list(range(there))
        full.room = 1000
        metrics.write(there, {"reward/mean": 0.123456789})
        metrics.write(there + 1, {})
        assert steps(path) == list(range(there + 2))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as place:
        yield place


def test_on_a_disk_that_is_full_a_step_is_refused_and_goes_through_when_there_is_room(disk: Path) -> None:
    path = disk / NAME
    with MetricsFile(path) as metrics:
        metrics.write(0, {"reward/mean": 0.5})
        ballast = take_room(disk, free=8192)
        wide = {f"area/metric-{number}": number / 7 for number in range(100)}
        step = 1
        with pytest.raises(OSError) as raised:
            for step in range(1, 100):
                metrics.write(step, wide)
        assert raised.value.errno == errno.ENOSPC
        assert 1 < step < 99
        assert steps(path) == list(range(step))
        ballast.unlink()
        assert metrics.write(step, wide) is Entry.NEW
        metrics.sync()
    assert steps(path) == list(range(step + 1))
