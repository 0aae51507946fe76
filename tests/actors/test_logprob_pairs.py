"""Checks of the input of the mismatch statistics, and its cutting into blocks."""

import pickle

import numpy as np
import pytest
from numpy.typing import NDArray

from actors import logprob_pairs
from actors.logprob_pairs import LogprobPairs, NonFiniteLogprob


def test_blocks_hold_whole_sequences_in_order_and_leave_out_the_empty_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprob_pairs, "BLOCK_TOKENS", 4)
    lengths = [0, 3, 0, 2, 9, 1, 1, 0]
    train = -np.arange(16.0)
    pairs = LogprobPairs(train, 2 * train, lengths)
    assert pairs.lengths.tolist() == [3, 2, 9, 1, 1]
    seen = []
    for block in pairs.blocks():
        ends = np.append(block.starts[1:], block.train.size)
        assert (ends - block.starts).tolist() == pairs.lengths[block.sequences].tolist()
        assert block.work.shape == (4, block.train.size)
        np.testing.assert_array_equal(block.rollout, 2 * block.train)
        seen.append(block.train.copy())
    assert len(seen) > 1
    np.testing.assert_array_equal(np.concatenate(seen), train)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_float_type_becomes_float64(dtype: type) -> None:
    column: NDArray[np.floating] = np.array([-0.5, -1.5, -0.25], dtype=dtype)
    (block,) = LogprobPairs(column, column, [1, 2]).blocks()
    assert block.train.dtype == block.rollout.dtype == np.float64
    assert block.train.tolist() == [-0.5, -1.5, -0.25]


def test_a_batch_without_tokens_has_no_blocks() -> None:
    assert list(LogprobPairs([], [], []).blocks()) == []
    assert list(LogprobPairs([], [], [0, 0]).blocks()) == []


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
