"""Lead times, missed collapses and false alarms of small runs, worked out by hand."""

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

import numpy as np
from rich.console import Console

from actors.lr_policies import LengthTriggeredConfig, SignalTriggeredConfig
from actors.lr_policies.detector import DetectorConfig
from orchestrator.stability import StabilityConfig
from sweeps.curves import Curves
from sweeps.lead_times import LeadTimes, first_firing, lead_time_table, lead_times

LENGTH, NONFINITE, NOISE = "response/length_mean", "gradient/nonfinite", "gradient/noise_scale"
NUM_STEPS = 12
# The first two lengths set the baseline, 10; the first later one above 20 is the surge.
SURGE = LengthTriggeredConfig(baseline_steps=2, smoothing=1.0, ratio=2.0, patience=1)
TWO_NONFINITE = StabilityConfig(patience=2)


def run(surge: int | None = None, collapse: int | None = None, first_step: int = 0, **more: float) -> Curves:
    """Twelve steps whose length jumps from 10 to 30 at row `surge`, and that have collapsed at row `collapse`."""
    rows: list[dict[str, float]] = []
    for i in range(NUM_STEPS):
        row = {"step": first_step + i, LENGTH: 30.0 if surge is not None and i >= surge else 10.0, **more}
        row[NONFINITE] = float(collapse is not None and i in (collapse - 1, collapse))
        rows.append(row)
    return of_rows(rows)


def of_rows(rows: Sequence[dict[str, float]]) -> Curves:
    steps = np.array([int(row["step"]) for row in rows], np.int64)
    return Curves(arm="baseline", seed=0, steps=steps, rows=tuple(rows), stability=TWO_NONFINITE)


def only(detector: DetectorConfig, runs: Sequence[Curves]) -> LeadTimes:
    [record] = lead_times(runs, {"it": detector})
    return record


def test_each_run_is_caught_missed_quiet_or_a_false_alarm() -> None:
    runs = [
        run(surge=3, collapse=7),  # caught 4 steps ahead
        run(surge=2, collapse=11),  # caught 9 ahead
        run(surge=5, collapse=5),  # caught at the very step
        run(surge=6, collapse=5),  # one step late
        run(surge=None, collapse=4),  # never noticed
        run(surge=8),  # a false alarm
        run(),
        run(),
        run(),
    ]
    assert only(SURGE, runs) == LeadTimes(
        detector="it",
        lead_steps=(4, 9, 0),
        num_missed=2,
        num_quiet=3,
        num_false_alarms=1,
        num_unfinished=0,
        num_without_signal=0,
    )


def test_a_run_that_never_carries_the_signal_does_not_count() -> None:
    detector = SignalTriggeredConfig(signal=NOISE, threshold=50.0, smoothing=1.0, patience=1)
    noisy = of_rows([{**row, NOISE: 100.0} if row["step"] == 6 else row for row in run(collapse=8).rows])
    record = only(detector, [noisy, run(collapse=8), run(), run(**{NOISE: 1.0})])
    assert record == LeadTimes(
        detector="it",
        lead_steps=(2,),
        num_missed=0,
        num_quiet=1,
        num_false_alarms=0,
        num_unfinished=0,
        num_without_signal=2,
    )
    assert (record.num_collapsed, record.num_stable) == (1, 1)


def test_any_event_is_a_firing() -> None:
    detector = SignalTriggeredConfig(signal=LENGTH, threshold=20.0, smoothing=1.0, patience=2)
    assert first_firing(run(surge=4), detector) == 5
    assert first_firing(run(), detector) is None


def test_of_length_triggered_only_the_surge_is_a_firing() -> None:
    by_hand = SURGE.model_copy(update={"decay_period": 2})  # decays at steps 2, 4, ... whatever the run does
    assert first_firing(run(surge=7), by_hand) == 7
    assert first_firing(run(), by_hand) is None


def test_steps_are_those_of_the_recording() -> None:
    assert first_firing(run(surge=4, first_step=100), SURGE) == 104
    assert only(SURGE, [run(surge=4, collapse=10, first_step=100)]).lead_steps == (6,)


def test_every_run_is_judged_by_its_own_settings() -> None:
    strict, lax = run(surge=3, collapse=7), run(surge=3, collapse=7)
    object.__setattr__(lax, "stability", StabilityConfig(patience=3))
    record = only(SURGE, [strict, lax])
    assert (record.lead_steps, record.num_false_alarms) == ((4,), 1)


def test_a_run_that_neither_collapsed_nor_came_to_its_end_is_left_out() -> None:
    longer = {"num_steps": NUM_STEPS + 1}
    runs = [
        replace(run(surge=3, collapse=7), **longer),  # a collapse is one, wherever the run stopped
        replace(run(surge=8), **longer),  # may yet collapse: no false alarm
        replace(run(), **longer),
        replace(run(surge=8), num_steps=NUM_STEPS),
        run(),
    ]
    record = only(SURGE, runs)
    assert record == LeadTimes(
        detector="it",
        lead_steps=(4,),
        num_missed=0,
        num_quiet=1,
        num_false_alarms=1,
        num_unfinished=2,
        num_without_signal=0,
    )
    assert record.num_stable == 2


def test_the_table_has_a_row_per_detector_with_the_number_of_runs_behind_each_figure() -> None:
    records = [
        LeadTimes(
            detector="length",
            lead_steps=(4, 9, 1),
            num_missed=1,
            num_quiet=2,
            num_false_alarms=3,
            num_unfinished=2,
            num_without_signal=0,
        ),
        LeadTimes(
            detector="noise",
            lead_steps=(),
            num_missed=0,
            num_quiet=1,
            num_false_alarms=0,
            num_unfinished=0,
            num_without_signal=8,
        ),
    ]
    out = StringIO()
    Console(file=out, width=120).print(lead_time_table(records))
    lines = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in out.getvalue().splitlines() if "│" in line
    ]
    assert lines == [
        ["length", "3 of 4", "4 (1-9)", "1 of 4", "3 of 5", "2", "0"],
        ["noise", "0 of 0", "-", "0 of 0", "0 of 1", "0", "8"],
    ]
    assert max(map(len, out.getvalue().splitlines())) <= 120
