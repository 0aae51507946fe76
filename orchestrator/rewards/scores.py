"""What a reward looks at, and what it says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

LONGEST_ANSWER = 1000  # characters of an extracted answer that a score keeps
LONGEST_ERROR = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardItem:
    """One response with what its problem says about the right answer.

    Example:
        RewardItem(response="9 eggs at $2 make \\boxed{18}", answer="18", source="gsm8k", extra={"level": 1})
    """

    response: str  # decoded, without special tokens
    answer: str
    source: str = ""  # the data set, for rewards that depend on it
    extra: Mapping[str, Any] = field(default_factory=dict)  # other columns of the problem; must be picklable


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a response is worth.

    Example:
        Score(value=1.0, answer="18")
        Score(value=0.0, error="took longer than 10 s")
    """

    value: float  # finite
    answer: str | None = None  # canonical text of the answer found in the response, for majority votes
    error: str | None = None  # why it could not be scored; the value is 0 then
    bonus: float = 0.0  # for the form of the response, beside its value

    @classmethod
    def failed(cls, reason: str) -> "Score":
        """The score of what could not be scored."""
        return cls(value=0.0, error=" ".join(reason.split())[:LONGEST_ERROR])

    @classmethod
    def of(cls, right: bool, answer: str | None) -> "Score":
        """1 for a right answer and 0 otherwise; an empty answer is none."""
        return cls(value=float(right), answer=answer[:LONGEST_ANSWER] if answer else None)


Scorer = Callable[[RewardItem], Score]
