"""Recorded rows under another policy's decisions: nothing but rate and events changes, to the last bit."""

import doctest
import json

from hypothesis import given
from hypothesis import strategies as st

from actors.lr_policies import LrDecision
from sweeps.fork import forked_rows as module
from sweeps.fork.forked_rows import rewritten, rows_of, whole_lines

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
KEYS = st.sampled_from(
    ["reward/mean", "scheduler/shadow/a/lr", "scheduler/shadow/a/event/decay", "time/step", "stability/collapsed"]
)


def test_the_example_in_the_docstring_is_right() -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@given(
    metrics=st.lists(st.dictionaries(KEYS, NUMBERS), max_size=4),
    rate=st.floats(0, 1),
    events=st.sampled_from([(), ("surge",), ("decay", "floor")]),
)
def test_all_else_stays_as_it_is_and_where_it_is(
    metrics: list[dict[str, float]], rate: float, events: tuple[str, ...]
) -> None:
    logged = {"scheduler/lr": rate, **{f"scheduler/event/{event}": 1.0 for event in events}}
    before = [{"step": step, "scheduler/lr": 0.5, "scheduler/event/x": 1.0, **row} for step, row in enumerate(metrics)]
    after = [{"step": step, **logged, **row} for step, row in enumerate(metrics)]
    lines, expected = (
        "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode() for rows in (before, after)
    )
    decisions = [LrDecision(step=step, lr=rate, events=events) for step in range(len(metrics))]
    assert rewritten(rows_of(whole_lines(lines), "metrics.jsonl"), decisions) == expected


def test_a_last_line_that_is_cut_off_is_no_line() -> None:
    assert whole_lines(b'{"step": 0}\n{"step": 1}\n{"st') == [b'{"step": 0}', b'{"step": 1}']
    assert whole_lines(b"") == []


def test_rows_end_before_a_line_that_is_not_the_next_step() -> None:
    good = [b'{"step": 0}', b'{"step": 1}']
    for bad in (b'{"step": 3}', b'{"step": 1}', b'{"step": 2.0}', b"{}", b'{"step": 2', b"[2]", b"\xff"):
        assert [row["step"] for row in rows_of([*good, bad, b'{"step": 2}'], "metrics.jsonl")] == [0, 1]
    assert list(rows_of([b'{"step": 1}'], "metrics.jsonl")) == []
