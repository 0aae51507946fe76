"""Random numbers that are functions of integers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actors.simulated.hashing import mixed, uniform

KEYS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20)


@given(KEYS)
def test_each_number_is_a_function_of_its_own_key(keys: list[int]) -> None:
    together = uniform(np.array(keys, np.uint64))
    alone = [float(uniform(np.array([key], np.uint64))[0]) for key in keys]
    assert together.tolist() == alone
    assert all(0 <= number < 1 for number in alone)


def test_the_first_numbers_are_those_of_splitmix64() -> None:
    state = np.array([0, 0x9E3779B97F4A7C15], np.uint64)  # what a generator that starts with 0 goes through
    assert mixed(state).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_neighbouring_keys_give_numbers_that_look_random() -> None:
    numbers = uniform(np.arange(10_000, dtype=np.uint64))
    assert abs(numbers.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03
