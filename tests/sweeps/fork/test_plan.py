"""Which of all recorded runs leaves the fewest steps to do."""

import shutil
from typing import Any

from sweeps.fork.plan import best_source


def test_the_newest_checkpoint_before_the_first_difference_comes_first(made: Any) -> None:
    baseline = made.run("baseline", made.config())
    plan = best_source(made.config(made.triggered(50.0)), 0, [baseline])
    assert plan is not None
    assert [beginning.steps for beginning in plan.beginnings] == [12, 6]
    assert plan.best.checkpoint == baseline / "checkpoints" / "step-000012"
    assert not plan.best.whole


def test_a_checkpoint_at_the_very_step_that_differs_will_do(made: Any) -> None:
    baseline = made.run("baseline", made.config())
    trial = made.config({"kind": "step", "period": 12, "lr": 1e-6})
    plan = best_source(trial, 0, [baseline])
    assert plan is not None
    assert plan.best.steps == 12


def test_the_run_that_shares_most_is_taken_and_of_equals_the_first(made: Any) -> None:
    baseline = made.run("baseline", made.config())
    early = made.run("trial-000", made.config(made.triggered(20.0)))
    late = made.run("trial-001", made.config(made.triggered(20.0, min_lr_ratio=0.5, cooldown_steps=0)))
    never = best_source(made.config(made.triggered(99.0)), 0, [early, baseline])
    assert never is not None
    assert (never.best.source, never.best.whole, never.best.steps) == (baseline, True, 20)
    for candidates in ([baseline, early, late], [baseline, late, early]):
        plan = best_source(made.config(made.triggered(25.0, min_lr_ratio=0.5)), 0, candidates)
        assert plan is not None
        assert (plan.best.source, plan.best.whole) == (candidates[1], True)


def test_a_run_that_was_never_over_is_shared_up_to_its_newest_checkpoint(made: Any) -> None:
    baseline = made.run("baseline", made.config(), until=17)
    plan = best_source(made.config(made.triggered(99.0)), 0, [baseline])
    assert plan is not None
    assert (plan.best.steps, plan.best.whole) == (12, False)


def test_runs_of_other_seeds_and_experiments_are_passed_over(made: Any) -> None:
    others = [
        made.run("baseline", made.config(), seed=1, until=7),
        made.run("other", made.config(rollout={"group_size": 4}), until=7),
        made.folder("nothing"),
    ]
    assert best_source(made.config(), 0, others) is None


def test_a_run_that_differs_from_the_first_step_on_is_of_no_use(made: Any) -> None:
    baseline = made.run("baseline", made.config())
    assert best_source(made.config({"lr": 3e-6}), 0, [baseline]) is None


def test_without_checkpoints_only_all_of_a_run_will_do(made: Any) -> None:
    baseline = made.run("baseline", made.config())
    shutil.rmtree(baseline / "checkpoints")
    assert best_source(made.config(made.triggered(50.0)), 0, [baseline]) is None
    plan = best_source(made.config(), 0, [baseline])
    assert plan is not None
    assert plan.best.whole


def test_nothing_is_left_to_do_where_a_run_was_stopped_for_its_collapse(made: Any) -> None:
    stops = {"stability": {"patience": 2, "on_collapse": "stop"}}
    trace = [{"reward/mean": 1.0 if step < 8 else 0.0} for step in range(made.steps)]
    stopped = made.run("baseline", made.config(**stops), trace)
    plan = best_source(made.config(made.triggered(20.0), **stops), 0, [stopped])
    assert plan is not None
    assert plan.best.whole
    assert plan.best.steps == len(made.rows(stopped))
