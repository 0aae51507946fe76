"""Which arms of a study the curves show: a page with hundreds of them would show none."""

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.curves import Curves
from sweeps.report_runs import REFERENCE
from sweeps.study.record import StudyRecord, TrialRecord

MOST_ARMS = 8  # as many as there are colours


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Some of the arms, and which these are in words.

    Example:
        Selection(runs=(curves,), told="the baseline and the 3 best trials of 16")
    """

    runs: tuple[Curves, ...]
    told: str


def select(runs: Sequence[Curves], study: StudyRecord) -> Selection:
    """The baseline and the best complete trials that keep the constraints, or when none does, that do not.

    A trial that trained no step of its own is left out: its curves are those of another arm.

    Args:
        runs: of all arms.
        study: that they belong to.
    """
    recorded = {run.arm for run in runs}
    done = [trial for trial in study.trials if trial.state == "complete" and trial.arm in recorded]
    feasible = [trial for trial in done if trial.feasible]
    sign = 1 if study.direction == "minimize" else -1
    own = [trial for trial in feasible or done if _trained(trial)]
    best = sorted(own, key=lambda trial: sign * (trial.value or 0.0))
    reference = [REFERENCE] if REFERENCE in recorded else []
    arms = [*reference, *(trial.arm for trial in best[: MOST_ARMS - len(reference)])]
    chosen = tuple(run for arm in arms for run in runs if run.arm == arm)
    return Selection(runs=chosen, told=_told(len(arms) - len(reference), len(study.trials), bool(feasible), reference))


def _trained(trial: TrialRecord) -> bool:
    return any(seed.executed for seed in trial.seeds.values()) or not trial.seeds


def _told(shown: int, trials: int, feasible: bool, reference: Sequence[str]) -> str:
    baseline = "the baseline" if reference else ""
    kept = "" if feasible else " (no trial keeps all constraints)"
    best = f"the {shown} best of {trials} trials{kept}, without those that are equal to another arm" if shown else ""
    return " and ".join(filter(None, [baseline, best])) or "nothing"
