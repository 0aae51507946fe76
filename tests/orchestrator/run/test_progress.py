"""Plain progress lines, as they stand in a log file."""

from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console

from orchestrator.records import StepRecord
from orchestrator.run import progress
from orchestrator.run.progress import Progress

METRICS = {
    "reward/mean": 0.25,
    "response/length_mean": 31.54,
    "mismatch/log_ppl_abs_diff": 0.00123,
    "gradient/norm": 1.5,
    "scheduler/lr": 5e-7,
    "throughput/tokens_per_s": 12345.6,
    "time/step": 2.0,
}


class FakeTime:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTime]:
    fake = FakeTime()
    monkeypatch.setattr(progress, "time", fake)
    yield fake


@pytest.fixture
def out() -> StringIO:
    return StringIO()


def plain(out: StringIO, steps: int) -> Progress:
    return Progress(Console(file=out, force_terminal=False, width=60), "decay seed 0", steps)


def record(step: int, *events: str, without: str = "") -> StepRecord:
    metrics = {key: value for key, value in METRICS.items() if key != without}
    return StepRecord(step=step, time_ms=0, metrics=metrics, events=events)


def test_a_line_names_the_run_the_step_and_every_column(time: FakeTime, out: StringIO) -> None:
    with plain(out, steps=90) as shown:
        shown.show(record(0))
        (line,) = out.getvalue().splitlines()
    for part in ("decay seed 0: ", "step 1/90", "reward 0.250", "length 31.5", "mismatch 1.23e-03", "grad norm 1.500"):
        assert part in line
    for part in ("lr 5.00e-07", "tokens/s 12,346", "left 2:58"):
        assert part in line


def test_an_absent_metric_is_a_dash(time: FakeTime, out: StringIO) -> None:
    with plain(out, steps=90) as shown:
        shown.show(record(0, without="gradient/norm"))
    assert "grad norm -" in out.getvalue()


def test_lines_come_every_ten_seconds_and_at_the_last_step(time: FakeTime, out: StringIO) -> None:
    with plain(out, steps=20) as shown:
        for step in range(20):
            time.now += 3.0
            shown.show(record(step))
        seen = [line.split("step ")[1].split("/")[0] for line in out.getvalue().splitlines()]
    assert seen == ["1", "5", "9", "13", "17", "20"]


def test_a_quiet_run_tells_a_step_a_minute_on_a_terminal_too(time: FakeTime, out: StringIO) -> None:
    console = Console(file=out, force_terminal=True, color_system=None, width=60)
    with (
        Progress(console, "decay seed 0", 30, quiet=True) as shown,
        Progress(console, "decay seed 1", 30, quiet=True) as other,
    ):
        for step in range(28):
            time.now += 7.0
            shown.show(record(step, *(["decay"] if step == 3 else [])))
        other.show(record(0))
    lines = [line for line in out.getvalue().splitlines() if line.startswith("decay seed 0")]
    seen = [line.split("step ")[1].split("/")[0] for line in lines]
    assert seen == ["1", "3: decay -> lr 5e-07", "10", "19", "28"]
    assert "\x1b" not in out.getvalue()
    assert "decay seed 1: step 1/30" in out.getvalue()


def test_every_step_is_told_at_most_once(time: FakeTime, out: StringIO) -> None:
    with plain(out, steps=2) as shown:
        shown.show(record(0))
        time.now += 3.0
        shown.show(record(1))
    lines = out.getvalue().splitlines()
    assert len(lines) == len(set(lines)) == 2


def test_a_run_that_ends_early_tells_its_last_step(time: FakeTime, out: StringIO) -> None:
    with pytest.raises(RuntimeError), plain(out, steps=90) as shown:
        shown.show(record(0))
        time.now += 3.0
        shown.show(record(1))
        raise RuntimeError("worker lost")
    assert "step 2/90" in out.getvalue().splitlines()[-1]


def test_a_run_that_never_got_to_a_step_tells_nothing(time: FakeTime, out: StringIO) -> None:
    with plain(out, steps=90):
        pass
    assert out.getvalue() == ""


def test_events_are_told_at_once_with_the_new_learning_rate(time: FakeTime, out: StringIO) -> None:
    with plain(out, steps=90) as shown:
        shown.show(record(0))
        time.now += 1.0
        shown.show(record(41, "surge", "decay"))
        assert out.getvalue().splitlines()[1:] == ["decay seed 0: step 41: surge, decay -> lr 5e-07"]


def test_text_in_brackets_is_printed_as_it_is(out: StringIO) -> None:
    plain(out, steps=90).say("runs [bold]here[/bold]")
    assert out.getvalue() == "decay seed 0: runs [bold]here[/bold]\n"


def test_the_time_left_of_a_run_that_goes_on_is_told_from_the_steps_of_this_process(
    time: FakeTime, out: StringIO
) -> None:
    with plain(out, steps=90) as shown:
        shown.show(record(40))
        time.now += 12.0
        shown.show(record(41))
    first, second = out.getvalue().splitlines()
    assert "step 41/90" in first and "left 1:38" in first  # 49 steps of 2 s
    assert "step 42/90" in second and "left 5:36" in second  # 48 steps of 7 s


def test_steps_that_are_done_again_are_shown_again_and_make_the_time_left_longer(time: FakeTime, out: StringIO) -> None:
    with plain(out, steps=10) as shown:
        for step in (4, 5, 6, 3, 4):
            time.now += 10.0
            shown.show(record(step))
    steps = [line.split("step ")[1].split("/")[0] for line in out.getvalue().splitlines()]
    assert steps == ["5", "6", "7", "4", "5"]
    left = [line.split("left ")[1] for line in out.getvalue().splitlines()]
    assert left == ["0:10", "0:24", "0:22", "3:12", "3:30"]
