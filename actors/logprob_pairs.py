"""The log-probs of the same tokens under learner and sampler, side by side, checked."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

CLIP = 20.0  # nats; bounds the differences that go into an exponential


class NonFiniteLogprob(ValueError):
    """A log-prob is NaN or infinite: the sampler or the learner is broken, and no metric would mean anything.

    Attributes:
        sequence: index of the sequence, empty ones counted.
        token: index of the token in its sequence.
        column: "train" or "rollout".
        value: nan, inf or -inf.
        name: what the sequence is called where its index says nothing.
    """

    def __init__(self, sequence: int, token: int, column: str, value: float, name: str = "") -> None:
        # all of them, so that it survives pickling between workers
        super().__init__(sequence, token, column, value, name)
        self.sequence = sequence
        self.token = token
        self.column = column
        self.value = value
        self.name = name or f"sequence {sequence}"

    def __str__(self) -> str:
        return f"{self.column} log-prob of {self.name}, token {self.token} is {self.value}"


class LogprobPairs:
    """Concatenated log-probs of a batch of sequences under both engines.

    Args:
        train: [T] natural logarithms under the learner, of any float type.
        rollout: [T] the same as the sampler reported them.
        lengths: [N] tokens per sequence; zeros are allowed and left out.

    Raises:
        ValueError: a shape or type is wrong, or the lengths do not add up to T.
    """

    def __init__(self, train: ArrayLike, rollout: ArrayLike, lengths: ArrayLike) -> None:
        columns = _column("train", train), _column("rollout", rollout)
        self._all_ends = np.cumsum(_checked_lengths(lengths))
        total = int(self._all_ends[-1]) if self._all_ends.size else 0
        if not columns[0].size == columns[1].size == total:
            raise ValueError(
                f"lengths add up to {total}, train has {columns[0].size} and rollout {columns[1].size} log-probs"
            )
        # both in float32 if they came so, else in float64
        kind = np.float32 if all(column.dtype == np.float32 for column in columns) else np.float64
        self.train, self.rollout = (np.ascontiguousarray(column, kind) for column in columns)
        # where the sequences that are not empty end: an empty one ends where another does, or begins
        self.ends: NDArray[np.int64] = np.unique(self._all_ends[self._all_ends > 0])

    def refuse_nonfinite(self) -> None:
        """Raise NonFiniteLogprob for the first token that has one, if there is any."""
        bad = np.flatnonzero(~(np.isfinite(self.train) & np.isfinite(self.rollout)))
        if not bad.size:
            return
        place = int(bad[0])
        sequence = int(np.searchsorted(self._all_ends, place, side="right"))
        start = int(self._all_ends[sequence - 1]) if sequence else 0
        column, values = ("rollout", self.rollout) if np.isfinite(self.train[place]) else ("train", self.train)
        raise NonFiniteLogprob(sequence, place - start, column, float(values[place]))


def _column(name: str, values: ArrayLike) -> NDArray[np.floating]:
    column = np.asarray(values)
    if column.ndim != 1 or not (np.issubdtype(column.dtype, np.floating) or column.size == 0):
        raise ValueError(f"{name} must be a 1-D array of floats, got shape {column.shape} of {column.dtype}")
    return column


def _checked_lengths(values: ArrayLike) -> NDArray[np.int64]:
    lengths = np.asarray(values)
    if lengths.ndim != 1 or not (np.issubdtype(lengths.dtype, np.integer) or lengths.size == 0):
        raise ValueError(f"lengths must be a 1-D array of integers, got shape {lengths.shape} of {lengths.dtype}")
    if lengths.size and lengths.min() < 0:
        raise ValueError(f"lengths must not be negative, got {lengths.min()}")
    return lengths.astype(np.int64)
