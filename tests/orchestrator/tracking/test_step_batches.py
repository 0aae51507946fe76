"""Batches of steps: whole, in order, no larger than one call holds."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.records import StepRecord
from orchestrator.tracking.step_batches import METRICS_PER_CALL, step_batches


@given(st.lists(st.sampled_from([0, 1, 40, 333, 500, METRICS_PER_CALL, METRICS_PER_CALL + 1]), max_size=20))
def test_steps_stay_whole_and_in_order_in_batches_that_are_full(sizes: list[int]) -> None:
    rows = [
        StepRecord(step=step, time_ms=step, metrics={str(i): 0.0 for i in range(size)}, events=())
        for step, size in enumerate(sizes)
    ]
    batches = list(step_batches(rows))
    assert [row for batch in batches for row in batch] == rows
    assert all(batches)
    totals = [sum(len(row.metrics) for row in batch) for batch in batches]
    for batch, total in zip(batches, totals, strict=True):
        assert total <= METRICS_PER_CALL or len(batch) == 1
    for total, following in zip(totals, batches[1:], strict=False):
        assert total + len(following[0].metrics) > METRICS_PER_CALL, "there was room for one more"
