"""A trial: its runs, seed by seed, and what they make of it."""

from dataclasses import replace
from typing import Any

import pytest
from optuna.trial import TrialState

from orchestrator.config_errors import ConfigError
from orchestrator.run.folder import METRICS, RunFolder
from orchestrator.run_spec import RunSpec
from sweeps.fork.fork import FORK, Fork
from sweeps.study.samplers import pruner_of, sampler_of
from sweeps.study.trial import REASON, Grounds, TrialRuns, arm_of, earlier_runs

SWEEP: dict[str, Any] = {"sharing": {"enabled": False}, "seeds": [0, 3], "trials": 2}
Outcome = tuple[TrialState, float | None]


def run_trial(acted: Any, number: int = 0) -> tuple[Outcome, Any]:
    """Run one trial; how it ends, and how it stands at Optuna then."""
    config = acted.sweep.config
    folder = acted.grounds.runs / acted.sweep.name / arm_of(number)
    with acted.store.claim(number, folder, sampler_of(config.sampler, number), pruner_of(config.pruner)) as trial:
        outcome = TrialRuns(acted.grounds, number).run(trial)
    return outcome, acted.store.trials()[number]


def test_arms_sort_by_number() -> None:
    assert [arm_of(number) for number in (7, 123, 4567)] == ["trial-007", "trial-123", "trial-4567"]


def test_a_trial_is_worth_the_mean_of_its_seeds(stage: Any, play: Any) -> None:
    specs: list[RunSpec] = []

    def run(spec: RunSpec) -> None:
        specs.append(spec)
        play(spec, **{"reward/mean": 0.25 if spec.seed else 0.75})

    (state, value), trial = run_trial(stage(SWEEP, run))
    assert (state, value) == (TrialState.COMPLETE, 0.5)
    assert trial.intermediate_values == {0: 0.75, 1: 0.75, 2: 0.75, 20: 0.25, 21: 0.25, 22: 0.25}
    assert [spec.seed for spec in specs] == [0, 3]
    assert all(getattr(spec.config.scheduler, "ratio", None) == trial.params["scheduler.ratio"] for spec in specs)
    assert all(spec.resume and spec.quiet and spec.tags == {"trial.number": "0"} for spec in specs)


def test_constraints_are_set_once_and_by_the_worst_seed(stage: Any, play: Any) -> None:
    changes = {**SWEEP, "constraints": [{"metric": "response/length_mean", "aggregate": "max", "at_most": 10.0}]}

    def run(spec: RunSpec) -> None:
        play(spec, **{"response/length_mean": 12.0 if spec.seed else 4.0})

    acted = stage(changes, run)
    _, trial = run_trial(acted)
    assert trial.constraints == {"response/length_mean max <= 10.0": 2.0}
    _, again = run_trial(acted)  # its driver died before it told the end
    assert again.constraints == trial.constraints


def test_a_collapse_prunes_the_trial_and_spares_the_other_seeds(stage: Any, play: Any) -> None:
    specs: list[RunSpec] = []

    def run(spec: RunSpec) -> None:
        specs.append(spec)
        play(spec, **{"stability/collapsed": 1.0})

    outcome, trial = run_trial(stage(SWEEP, run))
    assert outcome == (TrialState.PRUNED, None)
    assert trial.user_attrs[REASON] == "collapsed at step 0"
    assert [spec.seed for spec in specs] == [0]


def test_an_objective_that_was_never_recorded_fails_the_trial(stage: Any, play: Any) -> None:
    outcome, trial = run_trial(stage({**SWEEP, "objective": {"metric": "eval/held_out/avg@4"}}, play))
    assert outcome == (TrialState.FAIL, None)
    assert trial.user_attrs[REASON] == "eval/held_out/avg@4 was never recorded"


@pytest.mark.parametrize(("forks_from", "arms"), [("any", ["baseline", "trial-001"]), ("baseline", ["baseline"])])
def test_the_baseline_is_the_first_that_steps_are_shared_with(
    stage: Any, play: Any, forks_from: str, arms: Any
) -> None:
    acted = stage({"sharing": {"forks_from": forks_from}, "trials": 4}, play)
    for arm in ("trial-003", "trial-001", "baseline"):
        folder = acted.grounds.runs / acted.sweep.name / arm / "seed-0"
        folder.mkdir(parents=True)
        if arm != "trial-003":
            (folder / METRICS).touch()
    assert [folder.parent.name for folder in earlier_runs(acted.grounds, 0, 0)] == arms
    assert list(earlier_runs(acted.grounds, 0, 1)) == []
    assert [folder.parent.name for folder in earlier_runs(acted.grounds, 1, 0)] == ["baseline"]


@pytest.mark.parametrize(
    ("sharing", "of_baseline", "of_trial"),
    [({}, True, True), ({"forks_from": "baseline"}, True, False), ({"enabled": False}, False, False)],
)
def test_those_that_others_go_on_from_keep_all_checkpoints(
    stage: Any, play: Any, sharing: dict[str, Any], of_baseline: bool, of_trial: bool
) -> None:
    grounds = stage({"sharing": {**sharing, "every": 7}}, play).grounds
    for arm, keeps in (("baseline", of_baseline), ("trial-001", of_trial)):
        spec = grounds.spec(grounds.sweep.trial_config({}), arm, 1)
        assert spec.folder == grounds.runs / "ratios" / arm / "seed-1"
        checkpoint = spec.config.checkpoint
        assert (checkpoint is not None and (checkpoint.every, checkpoint.keep) == (7, 3)) is keeps


def test_a_run_that_began_with_anothers_steps_says_so(stage: Any, play: Any, sweeps: Any) -> None:
    folder = sweeps.folder / "trial-000" / "seed-0"
    folder.mkdir(parents=True)
    (folder / FORK).write_text(Fork(source="baseline", forked_at=2, whole=False).to_json())
    specs: list[RunSpec] = []

    def run(spec: RunSpec) -> None:
        specs.append(spec)
        play(spec)

    acted = stage({"seeds": [0], "trials": 2}, run)
    run_trial(acted)
    assert specs[0].tags == {"trial.number": "0", "forked_from": "baseline"}
    share = acted.study().record().trials[0].seeds["0"]
    assert (share.steps, share.executed, share.source, share.forked_at) == (3, 1, "baseline", 2)


def test_values_that_do_not_go_together_after_all_fail_the_trial(stage: Any, play: Any) -> None:
    acted = stage(SWEEP, play)
    tree = {**acted.sweep.experiment.tree, "steps": -1}
    broken = replace(acted.sweep, experiment=replace(acted.sweep.experiment, tree=tree))
    acted.grounds = replace(acted.grounds, sweep=broken, template=acted.grounds.template)
    outcome, trial = run_trial(acted)
    assert outcome == (TrialState.FAIL, None)
    assert "steps: got -1, expected" in trial.user_attrs[REASON]


def test_a_run_that_another_study_has_left_is_not_taken_for_the_trials(stage: Any, play: Any) -> None:
    acted = stage(SWEEP, play)
    left, wanted = (acted.sweep.trial_config({"scheduler.ratio": ratio, "scheduler.patience": 2}) for ratio in (2, 3))
    spec = acted.grounds.spec(wanted, "trial-000", 0)
    with RunFolder.reopen(spec.folder, left, 0):
        pass
    with pytest.raises(
        ConfigError, match=r"scheduler\.ratio: got 3\.0, expected the value of the run that is resumed: 2"
    ):
        Grounds.run(acted.grounds, spec)
