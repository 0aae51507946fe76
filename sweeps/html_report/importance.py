"""How much each parameter of a study's space matters for its objective, as Optuna estimates it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, ValidationError

from actors.settings import Settings
from orchestrator.config_errors import describe
from sweeps.study.record import StudyRecord, TrialRecord

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 2  # trials with a value, not all the same: with fewer there is nothing to explain
FOREST_SEED = 0  # of the estimate: the same study gives the same page


class SpaceEntry(Settings):
    """A parameter of the space, as the record of a study has it.

    Example:
        SpaceEntry(kind="float", low=1.2, high=3.0, log=False)
    """

    model_config = ConfigDict(extra="ignore")  # what else the space says of it does not matter here

    kind: Literal["float", "int", "categorical"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[str | float | int | bool | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """Shares of the objective's variance by parameter, or why there are none.

    Example:
        Importance(shares={"scheduler.ratio": 0.8, "scheduler.patience": 0.2}, num_trials=14, left_out=(), problem="")
    """

    shares: Mapping[str, float]  # largest first; they add up to 1
    num_trials: int  # behind them
    left_out: tuple[str, ...]  # parameters that not every one of these trials has
    problem: str  # one sentence; empty when there are shares


def read_space(study: StudyRecord, file: str) -> dict[str, SpaceEntry]:
    """The parameters of the study by path.

    Raises:
        ConfigError: an entry cannot be used; `file` is named in it.
    """
    space = {}
    for path, entry in study.space.items():
        try:
            choices = {"choices": tuple(entry["choices"])} if isinstance(entry.get("choices"), list) else {}
            space[path] = SpaceEntry.model_validate({**entry, **choices})
        except ValidationError as error:
            raise describe(error, SpaceEntry, entry, f"{file}: space.{path}", ".".join) from None
    return space


def importance(study: StudyRecord, space: Mapping[str, SpaceEntry]) -> Importance:
    """The shares by fANOVA over the complete trials of the study, whether they keep its constraints or not."""
    done = [trial for trial in study.trials if trial.state == "complete" and trial.value is not None]
    common = [path for path in space if all(path in trial.params for trial in done)]
    left_out = tuple(path for path in space if path not in common)

    def without(problem: str) -> Importance:
        return Importance(shares={}, num_trials=len(done), left_out=left_out, problem=problem)

    if len(done) < FEWEST or len({trial.value for trial in done}) < FEWEST:
        return without(f"It takes {FEWEST} complete trials with different values; there are {_counted(done)}.")
    varied = [path for path in common if len({trial.params[path] for trial in done}) > 1]
    if not varied:
        return without("No parameter that all complete trials have differs between them.")
    shares = _fanova(done, {path: space[path] for path in varied}, study.direction)
    shares |= {path: 0.0 for path in common if path not in varied}
    ordered = dict(sorted(shares.items(), key=lambda share: -share[1]))
    return Importance(shares=ordered, num_trials=len(done), left_out=left_out, problem="")


def _counted(done: Sequence[TrialRecord]) -> str:
    return f"{len(done)}" if len(done) < FEWEST else f"{len(done)} with the same value"


def _fanova(
    done: Sequence[TrialRecord], space: Mapping[str, SpaceEntry], direction: Literal["maximize", "minimize"]
) -> dict[str, float]:
    import optuna  # noqa: PLC0415 - takes a second, and only a study's page needs it

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        distributions = {path: _distribution(path, entry, done) for path, entry in space.items()}
        study = optuna.create_study(direction=direction)
        for trial in done:
            params = {path: trial.params[path] for path in space}
            study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=trial.value))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=FOREST_SEED)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
    finally:
        optuna.logging.set_verbosity(verbosity)


def _distribution(path: str, entry: SpaceEntry, done: Sequence[TrialRecord]) -> "BaseDistribution":
    """What the trials were drawn from, widened to those that were set by hand."""
    from optuna.distributions import (  # noqa: PLC0415 - as above
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    values: list[Any] = [trial.params[path] for trial in done]
    if entry.kind == "categorical":
        choices = list(dict.fromkeys([*entry.choices, *values]))
        return CategoricalDistribution(choices)
    low = min(value for value in (entry.low, *values) if value is not None)
    high = max(value for value in (entry.high, *values) if value is not None)
    logarithmic = entry.log and low > 0
    if entry.kind == "int":
        return IntDistribution(int(low), int(high), log=logarithmic)
    return FloatDistribution(float(low), float(high), log=logarithmic)
