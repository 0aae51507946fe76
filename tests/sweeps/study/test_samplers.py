"""A sweep file's kinds of samplers and pruners at Optuna, and what a suggestion depends on."""

from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, MedianPruner, NopPruner, PercentilePruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import Trial
from pydantic import TypeAdapter

from sweeps.space import Dimension, ask
from sweeps.study.samplers import pruner_of, sampler_of
from sweeps.sweep_config import PrunerConfig, RandomConfig, SamplerConfig, TpeConfig

SAMPLER, PRUNER = TypeAdapter[Any](SamplerConfig), TypeAdapter[Any](PrunerConfig)
SPACE: Mapping[str, Dimension] = TypeAdapter(dict[str, Dimension]).validate_python(
    {
        "ratio": {"kind": "float", "low": 1.2, "high": 3.0},
        "patience": {"kind": "int", "low": 1, "high": 50},
        "anchor": {"kind": "categorical", "choices": ["start", "surge"]},
    }
)


def suggested(config: Any, number: int, results: int = 0) -> dict[str, Any]:
    """What trial `number` chooses in a new study after so many results."""
    study = optuna.create_study(direction="maximize")
    for i in range(results):
        params = ask(SPACE, study.ask())
        study.tell(i, params["ratio"])
    while len(study.trials) < number:
        study.enqueue_trial({})
    study.sampler = sampler_of(config, number)
    return ask(SPACE, Trial(study, study._storage.create_new_trial(study._study_id)))


@pytest.mark.parametrize(
    ("block", "kind"), [({"kind": "tpe"}, TPESampler), ({"kind": "random", "seed": 3}, RandomSampler)]
)
def test_samplers(block: dict[str, Any], kind: type[BaseSampler]) -> None:
    assert type(sampler_of(SAMPLER.validate_python(block), 0)) is kind


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        ({"kind": "none"}, NopPruner),
        ({"kind": "median"}, MedianPruner),
        ({"kind": "percentile"}, PercentilePruner),
    ],
)
def test_pruners(block: dict[str, Any], kind: type[BasePruner]) -> None:
    assert type(pruner_of(PRUNER.validate_python(block))) is kind


@pytest.mark.parametrize(
    ("block", "bad", "good"), [({"kind": "median"}, 4, 5), ({"kind": "percentile", "percentile": 20}, 7, 7.5)]
)
def test_a_pruner_begins_when_it_is_told_and_keeps_as_many_as_it_is_told(
    block: dict[str, Any], bad: float, good: float
) -> None:
    pruner = pruner_of(PRUNER.validate_python({**block, "startup_trials": 10, "warmup_steps": 3}))
    study = optuna.create_study(direction="maximize", pruner=pruner)
    assert [behind(study, value) for value in range(10)] == [[False] * 5] * 10
    assert behind(study, bad) == [False, False, False, True, True]
    assert behind(study, good) == [False] * 5


def behind(study: optuna.Study, value: float) -> list[bool]:
    """Whether a trial that is worth that at each of its five steps would have been pruned there."""
    trial, pruned = study.ask(), []
    for step in range(5):
        trial.report(value, step)
        pruned.append(trial.should_prune())
    study.tell(trial, value) if not any(pruned) else study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return pruned


@pytest.mark.parametrize("config", [TpeConfig(seed=1), RandomConfig(kind="random", seed=1)])
def test_a_suggestion_depends_on_seed_number_and_nothing_that_runs_beside(config: Any) -> None:
    alone = suggested(config, 3)
    assert suggested(config, 3) == alone
    assert suggested(config, 4) != alone
    assert suggested(config.model_copy(update={"seed": 2}), 3) != alone


def test_with_tpe_it_depends_on_the_results_so_far() -> None:
    config = TpeConfig(startup_trials=4)
    assert suggested(config, 3, results=3) == suggested(config, 3)
    assert suggested(config, 9, results=9) != suggested(config, 9)


def test_studies_with_neighbouring_seeds_have_no_trial_in_common() -> None:
    grid = {
        (seed, number): suggested(RandomConfig(kind="random", seed=seed), number)["ratio"]
        for seed in range(6)
        for number in range(6)
    }
    assert len(set(grid.values())) == len(grid)


def test_the_largest_seed_and_number_are_fine() -> None:
    assert suggested(TpeConfig(seed=2**31 - 1), 2)
    assert sampler_of(TpeConfig(seed=2**31 - 1), 2**31 - 1)
