"""Checks of the input of the mismatch statistics."""

import pickle

import numpy as np
import pytest

from actors.logprob_pairs import LogprobPairs, NonFiniteLogprob


def test_empty_sequences_are_left_out() -> None:
    train = -np.arange(16.0)
    pairs = LogprobPairs(train, 2 * train, [0, 3, 0, 2, 9, 1, 1, 0])
    assert pairs.ends.tolist() == [3, 5, 14, 15, 16]
    assert LogprobPairs([], [], []).ends.tolist() == LogprobPairs([], [], [0, 0]).ends.tolist() == []


@pytest.mark.parametrize("dtypes", [(np.float16, np.float16), (np.float32, np.float64), (np.float64, np.float16)])
def test_columns_that_are_not_both_float32_become_float64(dtypes: tuple[type, type]) -> None:
    train, rollout = (np.array([-0.5, -1.5, -0.25], dtype=dtype) for dtype in dtypes)
    pairs = LogprobPairs(train, rollout, [1, 2])
    assert pairs.train.dtype == pairs.rollout.dtype == np.float64
    assert pairs.train.tolist() == pairs.rollout.tolist() == [-0.5, -1.5, -0.25]


def test_columns_are_taken_as_they_are_where_that_can_be() -> None:
    train = np.array([-0.5, -1.5, -0.25], np.float32)
    assert LogprobPairs(train, train, [1, 2]).train is train
    assert LogprobPairs(train[::2], train[::2], [2]).train.flags.c_contiguous


@pytest.mark.parametrize(
    ("train", "rollout", "lengths", "message"),
    [
        ([-1.0, -2.0], [-1.0, -2.0], [1, 2], "lengths add up to 3, train has 2 and rollout 2"),
        ([-1.0, -2.0], [-1.0], [2], "train has 2 and rollout 1"),
        ([-1.0], [-1.0], [], "lengths add up to 0"),
        ([-1.0], [-1.0], [2, -1], "not be negative, got -1"),
        ([-1.0], [-1.0], [1.0], "lengths must be a 1-D array of integers"),
        ([-1.0], [-1.0], [[1]], "lengths must be a 1-D array"),
        ([[-1.0]], [-1.0], [1], "train must be a 1-D array of floats, got shape"),
        ([-1.0], [-1], [1], "rollout must be a 1-D array of floats"),
    ],
)
def test_input_that_does_not_fit_together_is_refused(
    train: list[float], rollout: list[float], lengths: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LogprobPairs(train, rollout, lengths)


def test_a_nonfinite_logprob_survives_pickling_with_its_place() -> None:
    error = pickle.loads(pickle.dumps(NonFiniteLogprob(3, 1, "rollout", float("-inf"))))
    assert (error.sequence, error.token, error.column, error.value) == (3, 1, "rollout", float("-inf"))
    assert str(error) == "rollout log-prob of sequence 3, token 1 is -inf"
