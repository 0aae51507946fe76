"""avg@n, maj@n and pass@n by hand, and what they have to do with each other."""

import doctest
import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import orchestrator.evaluation_metrics
from orchestrator.evaluation_metrics import GradedProblem, evaluation_keys, evaluation_metrics


def problem(*answers: str | None, right: str = "18", finished: bool = True) -> GradedProblem:
    """Responses of 10, 20, 30, ... tokens with these answers."""
    return GradedProblem(
        scores=tuple(float(answer == right) for answer in answers),
        answers=answers,
        lengths=tuple(10 * (i + 1) for i in range(len(answers))),
        finished=(finished,) * len(answers),
    )


@pytest.mark.parametrize(
    ("answers", "average", "majority", "passed"),
    [
        (("18", "18", "17"), 2 / 3, 1.0, 1.0),
        (("17", "18", "17"), 1 / 3, 0.0, 1.0),
        (("17", "17", "16"), 0.0, 0.0, 0.0),
        (("18", "17"), 0.5, 0.5, 1.0),  # a tie
        (("18", "17", "16"), 1 / 3, 1 / 3, 1.0),
        ((None, None, "18"), 1 / 3, 1.0, 1.0),  # no answer, no vote
        ((None, None, None), 0.0, 0.0, 0.0),
        (("18",), 1.0, 1.0, 1.0),
    ],
)
def test_the_figures_of_a_problem(
    answers: tuple[str | None, ...], average: float, majority: float, passed: float
) -> None:
    graded = problem(*answers)
    assert (graded.average, graded.majority, graded.passed) == pytest.approx((average, majority, passed))


def test_a_set_has_the_means_over_problems_with_their_standard_errors() -> None:
    problems = [problem("18", "18"), problem("18", "17"), problem("17", "17", finished=False)]
    metrics = evaluation_metrics("aime24", problems, errors=1, prompts_dropped=2)
    assert metrics == pytest.approx(
        {
            "eval/aime24/avg@2": 0.5,
            "eval/aime24/avg@2_se": 0.5 / math.sqrt(3),
            "eval/aime24/maj@2": 0.5,
            "eval/aime24/maj@2_se": 0.5 / math.sqrt(3),
            "eval/aime24/pass@2": 2 / 3,
            "eval/aime24/pass@2_se": math.sqrt(1 / 3) / math.sqrt(3),
            "eval/aime24/length_mean": 15.0,
            "eval/aime24/clip_ratio": 1 / 3,
            "eval/aime24/errors": 1.0,
            "eval/aime24/prompts_dropped": 2.0,
        }
    )
    assert tuple(metrics) == evaluation_keys("aime24", 2)


def test_a_single_problem_has_no_standard_error() -> None:
    assert not any(
        key.endswith("_se") for key in evaluation_metrics("one", [problem("18", "17")], errors=0, prompts_dropped=0)
    )


answers = st.lists(st.sampled_from(["18", "17", "16", None]), min_size=1, max_size=6)


@given(answers)
def test_nothing_is_better_than_pass_and_nothing_depends_on_the_order(written: list[str | None]) -> None:
    graded = problem(*written)
    assert 0 <= graded.average <= graded.passed <= 1
    assert 0 <= graded.majority <= graded.passed
    figures = {(graded.majority, graded.passed) for order in permutations(written) for graded in [problem(*order)]}
    assert len(figures) == 1


@given(st.lists(st.lists(st.sampled_from(["18", "17", None]), min_size=3, max_size=3), min_size=2, max_size=20))
def test_avg_is_the_share_of_right_responses(written: list[list[str | None]]) -> None:
    metrics = evaluation_metrics("set", [problem(*some) for some in written], errors=0, prompts_dropped=0)
    assert metrics["eval/set/avg@3"] == pytest.approx(np.mean([answer == "18" for some in written for answer in some]))


def test_the_example_in_the_docstring_runs() -> None:
    results = doctest.testmod(orchestrator.evaluation_metrics)
    assert results.attempted and not results.failed
