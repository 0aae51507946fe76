"""How many steps go to MLflow in one call."""

from collections.abc import Iterable, Iterator

from orchestrator.records import StepRecord

METRICS_PER_CALL = 1000  # MLflow's limit


def step_batches(records: Iterable[StepRecord]) -> Iterator[list[StepRecord]]:
    """Consecutive steps, in each batch as many as one call holds, whole; a step too long for one is alone.

    MLflow stores a call wholly or not at all, and so a step.

    Example:
        >>> many = dict.fromkeys(map(str, range(400)), 0.0)
        >>> rows = [StepRecord(step=step, time_ms=step, metrics=many, events=()) for step in range(5)]
        >>> [[row.step for row in batch] for batch in step_batches(rows)]
        [[0, 1], [2, 3], [4]]
    """
    batch: list[StepRecord] = []
    room = METRICS_PER_CALL
    for record in records:
        if batch and len(record.metrics) > room:
            yield batch
            batch, room = [], METRICS_PER_CALL
        batch.append(record)
        room -= len(record.metrics)
    if batch:
        yield batch
