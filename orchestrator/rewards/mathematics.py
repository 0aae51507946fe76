r"""The math reward: the last boxed answer equals the problem's answer as mathematics, and a doubtful one does not."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sympy import Expr  # type: ignore[import-untyped]

from orchestrator.rewards.math_equality import same
from orchestrator.rewards.math_text import MathText, boxed_answer, normalized, plain_answer
from orchestrator.rewards.math_values import read_value
from orchestrator.rewards.scores import RewardItem, Score

NAME = re.compile(r"\\?[A-Za-z]+(?:_(?:\w|\{\w+\}))?(?: ?\([a-z](?:, ?[a-z])*\))?")
NEEDLESS_SPACE = re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])")  # but 5 6 is not 56
EQUALS = re.compile(r"(?<![<>!=])=(?!=)|\\in(?![a-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What an answer says: of what it speaks, where it says so, and the value.

    Example:
        Reading(text="x=1/2", name="x", value=Rational(1, 2), unit=None)
    """

    text: str  # the normalised body without needless spaces
    name: str | None
    value: Any | None  # of sympy; None where it is no mathematics that can be read safely
    unit: str | None


def score_mathematics(item: RewardItem) -> Score:
    r"""1 when the answer of the response equals that of the problem, otherwise 0.

    The answer is the last outermost `\boxed{...}` in the last 20,000 characters; an earlier one never counts, and a
    box that is empty or not closed is no answer. Without any box it is the final expression in the last 1,000
    characters, as math-verify finds it.

    Numbers are equal exactly (0.5 and 1/2, but not 0.333333 and 1/3); terms when their difference simplifies to 0;
    sets in any order, tuples and intervals end by end. A unit counts where both have one; a percentage also equals
    its number and its hundredth part. `x = 5` is 5, unless the problem's answer names another variable. Words, other
    scripts, and what is too large or too deep to work out are compared as text.
    """
    found = boxed_answer(item.response)
    answer = read(normalized(plain_answer(item.response) if found is None else found))
    if not answer.text:
        return Score(value=0.0)
    return Score.of(agree(read(normalized(item.answer)), answer), _canonical(answer))


@lru_cache(maxsize=4096)
def read(answer: MathText) -> Reading:
    """Read a normalised answer; answers that recur, as a problem's does over its responses, are read once."""
    text = NEEDLESS_SPACE.sub("", answer.body)
    sides = [side.strip() for side in EQUALS.split(answer.body)]
    name = sides.pop(0).replace(" ", "") if len(sides) > 1 and NAME.fullmatch(sides[0]) else None
    if len(sides) == 1:
        value = read_value(sides[0])
    elif "," in answer.body:
        name, value = None, read_value(answer.body)
    else:
        value = read_value(sides[0])
        if value is None or not all((other := read_value(side)) and same(value, other) for side in sides[1:]):
            value = None if name else read_value(answer.body)
    return Reading(text=text, name=name, value=value, unit=answer.unit)


def agree(gold: Reading, answer: Reading) -> bool:
    """Whether an answer is the gold answer; both must say something."""
    for ours, theirs in ((gold.unit, answer.unit), (gold.name, answer.name)):
        if ours and theirs and ours != theirs:
            return False
    if gold.text and _plain(gold.text) == _plain(answer.text):
        return True
    if gold.value is None or answer.value is None:
        return False
    if same(gold.value, answer.value):
        return True
    percent, plain = (gold, answer) if gold.unit == "percent" else (answer, gold)
    if percent.unit != "percent" or plain.unit or not isinstance(percent.value, Expr):
        return False
    return same(percent.value / 100, plain.value)


def _plain(text: str) -> str:
    """Text as it is compared: words in any case; single letters keep theirs, x is not X."""
    return text.lower() if re.search(r"[A-Za-z]{2}", text) else text


def _canonical(answer: Reading) -> str:
    text = _plain(answer.text) if answer.value is None else str(answer.value)
    return f"{text}%" if answer.unit == "percent" else text
