"""The arithmetic task: random access, determinism, and a validation stream that training never sees."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.problems.problem import Problem
from orchestrator.tasks import HELD_OUT_ONE_IN, ArithmeticTask, is_held_out


def operands(problem: Problem) -> tuple[int, int]:
    left, right = problem.prompt.removesuffix("=").split("+")
    return int(left), int(right)


@given(digits=st.integers(2, 6), seed=st.integers(0, 2**32), index=st.integers(0, 2**40))
def test_every_answer_is_the_sum_of_operands_with_the_asked_number_of_digits(
    digits: int, seed: int, index: int
) -> None:
    for problem in (ArithmeticTask(digits, seed).problem(index), ArithmeticTask(digits, seed).validation(index)):
        left, right = operands(problem)
        assert len(str(left)) == len(str(right)) == digits
        assert problem.answer == str(left + right)


def test_problems_are_the_same_in_any_order_of_access_and_in_another_process() -> None:
    task = ArithmeticTask(digits=3, seed=5)
    backwards = [task.problem(index) for index in reversed(range(20))][::-1]
    assert backwards == [ArithmeticTask(digits=3, seed=5).problem(index) for index in range(20)]
    code = "from orchestrator.tasks import ArithmeticTask as T; print(T(3, 5).problem(0).prompt)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == backwards[0].prompt


def test_seeds_change_training_but_not_validation() -> None:
    one, two = ArithmeticTask(digits=3, seed=1), ArithmeticTask(digits=3, seed=2)
    assert [one.problem(i) for i in range(20)] != [two.problem(i) for i in range(20)]
    assert [one.validation(i) for i in range(20)] == [two.validation(i) for i in range(20)]


def test_validation_sums_never_occur_in_training_whatever_the_seed() -> None:
    validation = {frozenset(operands(ArithmeticTask(2, 0).validation(i))) for i in range(2000)}
    training = {frozenset(operands(ArithmeticTask(2, seed).problem(i))) for seed in range(3) for i in range(4000)}
    assert validation.isdisjoint(training)


@given(left=st.integers(0, 10**6), right=st.integers(0, 10**6))
def test_the_order_of_operands_does_not_decide_what_is_held_out(left: int, right: int) -> None:
    assert is_held_out(left, right) == is_held_out(right, left)


def test_about_one_sum_in_eight_is_held_out() -> None:
    pairs = [(left, right) for left in range(10, 100) for right in range(left, 100)]
    share = sum(is_held_out(*pair) for pair in pairs) / len(pairs)
    assert share == pytest.approx(1 / HELD_OUT_ONE_IN, abs=0.02)


def test_one_digit_sums_are_refused_with_field_and_value() -> None:
    with pytest.raises(ValueError, match="digits: got 1, expected at least 2"):
        ArithmeticTask(digits=1, seed=0)


def test_tasks_and_rewards_import_without_torch_and_transformers() -> None:
    code = (
        "import sys, orchestrator.tasks, orchestrator.rewards;"
        "print({'torch', 'transformers', 'vllm', 'ray'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
