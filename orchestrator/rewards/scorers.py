"""From a reward's settings to the function that scores."""

from dataclasses import replace
from typing import NamedTuple

from orchestrator.rewards.arithmetic import score_arithmetic
from orchestrator.rewards.config import (
    ArithmeticReward,
    ExactReward,
    FormatConfig,
    PythonReward,
    RegexReward,
    RewardConfig,
)
from orchestrator.rewards.exact import exact_scorer
from orchestrator.rewards.regex import regex_scorer
from orchestrator.rewards.scores import Scorer
from orchestrator.rewards.shaping import format_bonus
from orchestrator.rewards.user_function import user_scorer


class Scoring(NamedTuple):
    """What a reward process does with a response.

    Example:
        Scoring(MathReward(), FormatConfig(pattern="<think>", bonus=0.1))
    """

    reward: RewardConfig
    form: FormatConfig | None = None


def build_scorer(scoring: Scoring) -> Scorer:
    """The scorer of a reward. It may raise, hang and use up memory; `RewardPool` is what answers for that.

    Raises:
        NotAFunction: the user's function cannot be imported or is none.
    """
    scorer, form = _scorer_of(scoring.reward), scoring.form
    if form is None:
        return scorer
    return lambda item: replace(scorer(item), bonus=format_bonus(form, item.response))


def _scorer_of(config: RewardConfig) -> Scorer:
    match config:
        case ArithmeticReward():
            return score_arithmetic
        case ExactReward():
            return exact_scorer(config)
        case RegexReward():
            return regex_scorer(config)
        case PythonReward():
            return user_scorer(config)
    from orchestrator.rewards.mathematics import score_mathematics  # noqa: PLC0415 - sympy takes half a second

    return score_mathematics
