"""The log-probs of the same tokens under learner and sampler, side by side: checked and cut into blocks."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Six rows of float64 of this length take 6 MiB: they stay in a processor's cache, and the overhead of calls is hidden.
BLOCK_TOKENS = 131_072


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


class Block(NamedTuple):
    """Some neighbouring sequences, none of them empty, in arrays that live until the next block.

    Example:
        Block(sequences=slice(0, 2), starts=array([0, 3]), train=array([-0.5, -1.2, -0.1, -2.0]),
              rollout=array([-0.4, -1.2, -0.2, -2.0]), work=empty((4, 4)))
    """

    sequences: slice  # their place among the sequences that are not empty
    starts: NDArray[np.int64]  # [N] index of each one's first token in this block
    train: Floats  # [T]
    rollout: Floats  # [T]
    work: Floats  # [4, T] of whatever was there: room for the reader's own numbers


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
        self._train = _column("train", train)
        self._rollout = _column("rollout", rollout)
        self._all_ends = np.cumsum(_checked_lengths(lengths))
        total = int(self._all_ends[-1]) if self._all_ends.size else 0
        if not self._train.size == self._rollout.size == total:
            raise ValueError(
                f"lengths add up to {total}, train has {self._train.size} and rollout {self._rollout.size} log-probs"
            )
        self._ends = np.unique(self._all_ends[self._all_ends > 0])  # an empty sequence ends where another does
        self.lengths: NDArray[np.int64] = np.diff(self._ends, prepend=0)  # [sequences that are not empty]
        # the first sequence of each block, and the number of sequences
        self._cuts = np.flatnonzero(np.diff((self._ends - 1) // BLOCK_TOKENS, prepend=-1, append=-1))

    @property
    def num_blocks(self) -> int:
        """How many `blocks` there are in all shares together."""
        return max(0, self._cuts.size - 1)

    def blocks(self, share: int = 0, shares: int = 1) -> Iterator[Block]:
        """Cut the batch into whole sequences of about BLOCK_TOKENS together, in float64.

        Every `shares`-th of them, beginning with number `share`: threads may each take a share of their own.
        """
        starts = self._ends - self.lengths
        bounds = np.append(starts, self._train.size)[self._cuts]
        scratch = np.empty((6, int(np.diff(bounds).max(initial=0))))
        for block in range(share, self.num_blocks, shares):
            first, last = int(self._cuts[block]), int(self._cuts[block + 1])
            tokens = slice(int(bounds[block]), int(bounds[block + 1]))
            yield Block(
                sequences=slice(first, last),
                starts=starts[first:last] - tokens.start,
                train=_in_float64(self._train[tokens], scratch[0]),
                rollout=_in_float64(self._rollout[tokens], scratch[1]),
                work=scratch[2:, : tokens.stop - tokens.start],
            )

    def refuse_nonfinite(self) -> None:
        """Raise NonFiniteLogprob for the first token that has one, if there is any."""
        bad = np.flatnonzero(~(np.isfinite(self._train) & np.isfinite(self._rollout)))
        if not bad.size:
            return
        place = int(bad[0])
        sequence = int(np.searchsorted(self._all_ends, place, side="right"))
        start = int(self._all_ends[sequence - 1]) if sequence else 0
        column, values = ("rollout", self._rollout) if np.isfinite(self._train[place]) else ("train", self._train)
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


def _in_float64(values: NDArray[np.floating], scratch: Floats) -> Floats:
    """The values themselves when they are float64 already, else a copy in `scratch`."""
    if values.dtype == np.float64:
        return np.asarray(values, dtype=np.float64)  # for the type checker
    copy = scratch[: values.size]
    np.copyto(copy, values)
    return copy
