"""The warm-start corpus: sums answered at once (often wrong) or column by column (mostly right)."""

import random
from dataclasses import dataclass

from orchestrator.problems.problem import Problem
from orchestrator.rewards import ANSWER_MARK
from orchestrator.tasks import ArithmeticTask

COLUMN_END = ";"
CHARACTERS = "0123456789+=" + COLUMN_END + ANSWER_MARK


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusMixture:
    """Shares that make long responses pay: reinforcement then lengthens responses by itself.

    Example:
        CorpusMixture(digits=3, step_share=0.3, direct_error=0.6, slip=0.05)
    """

    digits: int = 3
    step_share: float = 0.3  # of all samples, those that reason column by column
    direct_error: float = 0.6  # of the direct answers, those that are wrong
    slip: float = 0.05  # of the step-by-step responses, those with one wrong column


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStartSample:
    """One supervised sample: the problem and the response to imitate.

    Example:
        WarmStartSample(problem=Problem(prompt="47+85=", answer="132"), response="7+5+0=12;4+8+1=13;#132")
    """

    problem: Problem
    response: str


def warm_start_sample(mixture: CorpusMixture, seed: int, index: int) -> WarmStartSample:
    """Return sample `index` of the corpus with this seed; held-out problems never occur."""
    rng = random.Random(f"corpus/{seed}/{index}")
    problem = ArithmeticTask(mixture.digits, seed).problem(index)
    if rng.random() < mixture.step_share:
        response = step_response(problem, rng, slip=rng.random() < mixture.slip)
    else:
        response = direct_response(problem, rng, wrong=rng.random() < mixture.direct_error)
    return WarmStartSample(problem=problem, response=response)


def direct_response(problem: Problem, rng: random.Random, *, wrong: bool) -> str:
    """Answer at once, e.g. `"#132"`; a wrong answer differs from the right one in exactly one digit."""
    return ANSWER_MARK + (_change_one_digit(problem.answer, rng) if wrong else problem.answer)


def step_response(problem: Problem, rng: random.Random, *, slip: bool) -> str:
    """Add column by column from the right, with carries, e.g. `"7+5+0=12;4+8+1=13;#132"`.

    A slip writes one column's sum off by one and reasons on from it, so that the final answer is wrong.
    """
    left, right = problem.text.removesuffix("=").split("+")
    slip_column = rng.randrange(len(left)) if slip else None
    columns, carry, answer = [], 0, ""
    for column, (a, b) in enumerate(zip(reversed(left), reversed(right), strict=True)):
        total = int(a) + int(b) + carry + (column == slip_column)
        columns.append(f"{a}+{b}+{carry}={total}{COLUMN_END}")
        carry, answer = total // 10, str(total % 10) + answer
    return "".join(columns) + ANSWER_MARK + (str(carry) if carry else "") + answer


def _change_one_digit(number: str, rng: random.Random) -> str:
    position = rng.randrange(len(number))
    digit = (int(number[position]) + rng.randrange(1, 10)) % 10
    return f"{number[:position]}{digit}{number[position + 1 :]}"
