"""A run that waits between its turns, driven by hand."""

import threading

import pytest

from orchestrator.bench.paced_run import PacedRun
from orchestrator.records import StepRecord


def step(number: int) -> StepRecord:
    return StepRecord(step=number, time_ms=0, metrics={"sampling/tokens": 10.0 * number}, events=())


def drive(run: PacedRun) -> threading.Thread:
    """Steps until the watch ends them, in a thread as a run has one."""

    def work() -> None:
        number = 1
        while run.see(step(number)):
            number += 1

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_it_comes_up_with_one_step_and_does_the_steps_of_a_turn() -> None:
    run = PacedRun(steps_per_turn=2)
    thread = drive(run)
    assert run.await_turn().tokens == 10
    turn = run.turn()
    assert [record.step for record in turn.records] == [2, 3]
    assert turn.tokens == 50
    assert turn.seconds > 0
    assert run.turn().tokens == 90
    run.end()
    thread.join(10)
    assert not thread.is_alive()


def test_what_ends_the_run_is_raised_where_a_turn_is_awaited() -> None:
    run = PacedRun(steps_per_turn=1)
    run.fail(RuntimeError("no room"))
    with pytest.raises(RuntimeError, match="no room"):
        run.turn()
