"""What a run of a trial is watched for, at its first going and after the driver has died."""

from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial, Trial

from orchestrator.records import StepRecord
from sweeps.study.watch import StopWatch, TrialWatch

METRIC = "eval/held_out/avg@1"


class AlwaysBehind(BasePruner):
    """Prunes at every question, and keeps at which steps it was asked."""

    def __init__(self) -> None:
        self.asked: list[int | None] = []

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        self.asked.append(trial.last_step)
        return True


def study_with(pruner: BasePruner) -> optuna.Study:
    return optuna.create_study(direction="maximize", pruner=pruner)


def watch_of(trial: Trial, **changes: Any) -> TrialWatch:
    options: dict[str, Any] = {
        "metric": METRIC,
        "offset": 0,
        "prune_on_collapse": True,
        "stops_itself": False,
        "interrupted": lambda: False,
    }
    return TrialWatch(trial, **(options | changes))


def step(number: int, value: float | None = None, collapsed: bool = False) -> StepRecord:
    metrics = {"reward/mean": 0.5}
    metrics |= {} if value is None else {METRIC: value}
    metrics |= {"stability/collapsed": 1.0} if collapsed else {}
    return StepRecord(step=number, time_ms=0, metrics=metrics, events=())


def see(watch: TrialWatch, values: Sequence[float | None], first: int = 0) -> list[bool]:
    return [watch.see(step(first + i, value)) for i, value in enumerate(values)]


def reported(trial: Trial) -> dict[int, float]:
    found: dict[int, float] = trial.storage.get_trial(trial._trial_id).intermediate_values
    return found


def test_the_objectives_metric_is_reported_whenever_a_step_has_it() -> None:
    trial = study_with(NopPruner()).ask()
    watch = watch_of(trial)
    assert see(watch, [0.1, None, 0.3, None]) == [True] * 4
    assert reported(trial) == {0: 0.1, 2: 0.3}
    assert watch.closing_tags() == {"trial.state": "complete"}


def test_the_steps_of_the_seeds_follow_each_other() -> None:
    trial = study_with(NopPruner()).ask()
    see(watch_of(trial), [0.1, 0.2])
    see(watch_of(trial, offset=20), [0.3, 0.4])
    assert reported(trial) == {0: 0.1, 1: 0.2, 20: 0.3, 21: 0.4}


@pytest.mark.filterwarnings("error")  # Optuna's, of a step that is reported again
def test_each_step_is_reported_once_also_after_a_driver_has_died() -> None:
    trial = study_with(NopPruner()).ask()
    see(watch_of(trial), [0.1, 0.2])
    again = Trial(trial.study, trial._trial_id)
    assert see(watch_of(again), [0.1, 0.2, 0.3]) == [True] * 3
    assert reported(trial) == {0: 0.1, 1: 0.2, 2: 0.3}


def test_a_trial_behind_the_others_ends_and_says_so() -> None:
    study = study_with(MedianPruner(n_startup_trials=1))
    good = study.ask()
    assert see(watch_of(good), [0.8, 0.9]) == [True, True]
    study.tell(good, 0.9)
    watch = watch_of(study.ask())
    assert see(watch, [0.85, None, 0.2]) == [True, True, True]  # its best so far counts
    bad = watch_of(study.ask())
    assert see(bad, [0.25]) == [False]
    assert bad.reason == f"behind the other trials at step 0, with {METRIC} 0.25"
    assert bad.closing_tags() == {"trial.state": "pruned"}


def test_after_a_driver_has_died_steps_are_not_judged_by_what_came_after_them() -> None:
    pruner = AlwaysBehind()
    trial = study_with(NopPruner()).ask()
    see(watch_of(trial), [0.1, 0.2, 0.3])
    watch = watch_of(Trial(study_with_same(trial, pruner), trial._trial_id))
    assert see(watch, [0.1, 0.2]) == [True, True]
    assert pruner.asked == []
    assert see(watch, [0.3], first=2) == [False]  # whoever reported it may not have come to ask
    assert pruner.asked == [2]
    assert watch.reason is not None
    assert "at step 2" in watch.reason


def study_with_same(trial: Trial, pruner: BasePruner) -> optuna.Study:
    return optuna.load_study(study_name=trial.study.study_name, storage=trial.storage, pruner=pruner)


@pytest.mark.parametrize("stops_itself", [True, False])
def test_a_collapse_ends_the_trial_and_the_run_if_that_does_not_end_by_itself(stops_itself: bool) -> None:
    pruner = AlwaysBehind()
    watch = watch_of(study_with(pruner).ask(), stops_itself=stops_itself)
    assert watch.see(step(0))
    assert watch.see(step(1, value=0.5, collapsed=True)) is stops_itself
    assert watch.reason == "collapsed at step 1"
    assert watch.closing_tags() == {"trial.state": "pruned"}
    assert pruner.asked == []


def test_a_collapse_ends_nothing_where_it_shall_not() -> None:
    watch = watch_of(study_with(NopPruner()).ask(), prune_on_collapse=False)
    assert watch.see(step(1, collapsed=True))
    assert watch.reason is None


def test_the_end_of_the_study_ends_the_run_before_anything_is_reported() -> None:
    trial = study_with(NopPruner()).ask()
    with pytest.raises(KeyboardInterrupt):
        watch_of(trial, interrupted=lambda: True).see(step(0, 0.5))
    assert reported(trial) == {}


def test_a_baseline_is_watched_for_the_end_of_the_study_only() -> None:
    ended = False
    watch = StopWatch(lambda: ended)
    assert watch.see(step(0, collapsed=True))
    assert watch.closing_tags() == {}
    ended = True
    with pytest.raises(KeyboardInterrupt):
        watch.see(step(1))
