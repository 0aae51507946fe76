"""Where learner and sampler disagree in recorded rollouts: by position, by probability, and the worst of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from heapq import heappush, heapreplace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from actors.statistics import MismatchSums
from actors.sums import MAX, SUM, Sums
from orchestrator.recorded import Piece, Row, read_pieces

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Item = TypeVar("Item")

KEPT = 32  # of the worst sequences and tokens, if not told otherwise
CONTEXT = 8  # tokens before and after one of the worst
POSITION_EDGES = 4 ** np.arange(13)  # 0, 1-3, 4-15, ..., each four times as wide as the one before
PROBABILITY_EDGES = np.array([1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.9, 0.99])
POSITIONS = ("0", *(f"{low}-{4 * low - 1}" for low in POSITION_EDGES[:-1]), f">={POSITION_EDGES[-1]}")
PROBABILITIES = ("<1e-4", "1e-4-1e-3", "1e-3-0.01", "0.01-0.1", "0.1-0.5", "0.5-0.9", "0.9-0.99", ">=0.99")
FACTS = (
    *("step", "split", "problem", "sample", "source", "answer", "extracted"),
    *("score", "reward", "advantage", "error", "finished", "weight_version"),
)
TEXTS = ("prompt", "tokens", "response_token_ids")


@dataclass(frozen=True, slots=True, kw_only=True)
class BinSums(Sums):
    """Sufficient statistics of the tokens in one bin; d = a - b are a token's log-probs, learner - sampler.

    Example, of two tokens:
        BinSums(tokens=2, diff=0.1, abs_diff=0.3, abs_diff_max=0.2, prob_abs_diff=0.05)
    """

    tokens: int = field(default=0, metadata=SUM)
    diff: float = field(default=0.0, metadata=SUM)  # of d
    abs_diff: float = field(default=0.0, metadata=SUM)  # of |d|
    abs_diff_max: float = field(default=0.0, metadata=MAX)
    prob_abs_diff: float = field(default=0.0, metadata=SUM)  # of |exp(a) - exp(b)|


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceMismatch:
    """A response, T tokens long, and how far the engines are apart in it.

    Example:
        SequenceMismatch(place="row 17", facts={"step": 40, "score": 1.0}, prompt="347+285=", tokens=("#", "632"),
                         diffs=array([0.01, -0.2]))
    """

    place: str  # line or row of the file
    facts: Mapping[str, str | int | float]  # columns of FACTS that the row has a value for
    prompt: str | None
    tokens: tuple[str, ...]  # [T] texts; else ids, else positions
    diffs: Floats  # [T] log-prob under the learner - under the sampler

    @property
    def mean_diff(self) -> float:
        """Mean of d over the tokens: the log of the geometric mean of the importance ratios."""
        return float(self.diffs.mean())

    @property
    def sum_diff(self) -> float:
        """Sum of d over the tokens: the log of the importance ratio of the whole sequence."""
        return float(self.diffs.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMismatch:
    """A token on which the engines are far apart.

    Example:
        TokenMismatch(place="row 17", position=1, before="#", token="632", after="", train_logprob=-0.3,
                      rollout_logprob=-0.1)
    """

    place: str  # line or row of the file
    position: int  # in the response, from 0
    before: str  # up to CONTEXT tokens
    token: str
    after: str
    train_logprob: float
    rollout_logprob: float

    @property
    def diff(self) -> float:
        """The log-prob under the learner - under the sampler."""
        return self.train_logprob - self.rollout_logprob


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What one file of recorded rollouts shows of the mismatch.

    Example:
        Inspection(source="step-000040.parquet", totals=MismatchSums(tokens=5120, sequences=64), steps=(40, 40),
                   by_position={"0": BinSums(tokens=64)}, by_probability={"<1e-4": BinSums(tokens=3)},
                   worst_by_mean=(sequence,), worst_by_sum=(sequence,), worst_tokens=(token,))
    """

    source: str
    totals: MismatchSums  # as `evenkeel metrics` has them
    steps: tuple[int, int] | None  # first and last; None without such a column
    by_position: Mapping[str, BinSums]  # in the response; up to the last bin with tokens
    by_probability: Mapping[str, BinSums]  # of the token under the sampler; all bins
    worst_by_mean: tuple[SequenceMismatch, ...]  # by |mean d|; those without any difference never among them
    worst_by_sum: tuple[SequenceMismatch, ...]  # by |sum d|
    worst_tokens: tuple[TokenMismatch, ...]  # by |d|

    @classmethod
    def read(cls, path: str, keep: int = KEPT) -> "Inspection":
        """Inspect a file piece by piece; memory holds one piece and the worst.

        A further column is used where it fits (a text for `prompt`, one text or id a token), and left out otherwise.

        Args:
            path: `.parquet` or `.jsonl` with the list columns train_logprobs and rollout_logprobs.
            keep: how many of the worst sequences and tokens to keep, at least 1.

        Raises:
            ConfigError: with line or row, as `orchestrator.recorded.read_pieces`.
        """
        tally = _Tally(keep)
        for piece in read_pieces(path, (*FACTS, *TEXTS)):
            tally.add(piece)
        filled = max(place for place, sums in enumerate(tally.by_position) if sums.tokens) + 1
        return cls(
            source=path,
            totals=tally.totals,
            steps=(min(tally.steps), max(tally.steps)) if tally.steps else None,
            by_position=dict(zip(POSITIONS[:filled], tally.by_position, strict=False)),
            by_probability=dict(zip(PROBABILITIES, tally.by_probability, strict=True)),
            worst_by_mean=tally.worst_by_mean.items(),
            worst_by_sum=tally.worst_by_sum.items(),
            worst_tokens=tally.worst_tokens.items(),
        )


class _Worst(Generic[Item]):
    """The `keep` items of the largest size, as they come by; the earlier one first where sizes are equal, 0 never."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._seen = 0
        self._heap: list[tuple[float, int, Item]] = []  # the smallest first; the second tells the later one of equals

    def offer(self, sizes: Floats, item: Callable[[int], Item]) -> None:
        """More of them; `item` makes the i-th."""
        floor = self._heap[0][0] if len(self._heap) == self._keep else 0.0
        larger = np.flatnonzero(sizes > floor)
        for i in larger[np.argsort(-sizes[larger], kind="stable")[: self._keep]].tolist():
            size, order = float(sizes[i]), -(self._seen + i)
            if len(self._heap) < self._keep:
                heappush(self._heap, (size, order, item(i)))
            elif size > self._heap[0][0]:
                heapreplace(self._heap, (size, order, item(i)))
        self._seen += sizes.size

    def items(self) -> tuple[Item, ...]:
        return tuple(item for *_, item in sorted(self._heap, key=lambda entry: entry[:2], reverse=True))


class _Tally:
    """What is known of the pieces read so far."""

    def __init__(self, keep: int) -> None:
        self.totals = MismatchSums.empty()
        self.steps: set[int] = set()  # the first and the last
        self.by_position = [BinSums()] * len(POSITIONS)
        self.by_probability = [BinSums()] * len(PROBABILITIES)
        self.worst_by_mean: _Worst[SequenceMismatch] = _Worst(keep)
        self.worst_by_sum: _Worst[SequenceMismatch] = _Worst(keep)
        self.worst_tokens: _Worst[TokenMismatch] = _Worst(keep)

    def add(self, piece: Piece) -> None:
        self.totals = self.totals.merge(piece.sums)
        steps = [*self.steps, *(row.cells(("step",)).get("step") for row in piece.rows)]
        known = [step for step in steps if type(step) is int]
        self.steps = {min(known), max(known)} if known else set()
        lengths = np.array([len(row.train) for row in piece.rows])
        train = np.concatenate([row.train for row in piece.rows]).astype(np.float64)
        rollout = np.concatenate([row.rollout for row in piece.rows]).astype(np.float64)
        ends = np.cumsum(lengths)
        position = np.arange(train.size) - np.repeat(ends - lengths, lengths)
        self._add_bins(train, rollout, position)
        diff = train - rollout
        sequence = cache(lambda i: _sequence(piece, i))
        sums = np.bincount(np.repeat(np.arange(lengths.size), lengths), diff, lengths.size)
        self.worst_by_mean.offer(np.abs(sums) / np.maximum(lengths, 1), sequence)
        self.worst_by_sum.offer(np.abs(sums), sequence)

        def token(place: int) -> TokenMismatch:
            of_row = int(np.searchsorted(ends, place, side="right"))
            return _token(sequence(of_row), piece.rows[of_row], int(position[place]))

        self.worst_tokens.offer(np.abs(diff), token)

    def _add_bins(self, train: Floats, rollout: Floats, position: Indices) -> None:
        diff = train - rollout
        with np.errstate(over="ignore"):  # of log-probs far above 0, which no engine reports
            probability = np.exp(rollout)
            gap = np.exp(np.maximum(train, rollout)) * -np.expm1(-np.abs(diff))  # |exp(a) - exp(b)|, not cancelling
        of_position = np.searchsorted(POSITION_EDGES, position, side="right")
        of_probability = np.searchsorted(PROBABILITY_EDGES, probability, side="right")
        self.by_position = _with(self.by_position, of_position, diff, gap)
        self.by_probability = _with(self.by_probability, of_probability, diff, gap)


def _with(bins: Sequence[BinSums], index: Indices, diff: Floats, gap: Floats) -> list[BinSums]:
    """The bins with further tokens in them; `index` [T] says in which each is."""
    size, number = np.abs(diff), len(bins)
    largest = np.zeros(number)
    np.maximum.at(largest, index, size)
    counts = np.bincount(index, minlength=number)
    diffs, sizes, gaps = (np.bincount(index, values, number) for values in (diff, size, gap))
    return [
        old.merge(
            BinSums(
                tokens=int(counts[i]),
                diff=float(diffs[i]),
                abs_diff=float(sizes[i]),
                abs_diff_max=float(largest[i]),
                prob_abs_diff=float(gaps[i]),
            )
        )
        for i, old in enumerate(bins)
    ]


def _sequence(piece: Piece, i: int) -> SequenceMismatch:
    row = piece.rows[i]
    cells = row.cells((*FACTS, *TEXTS))
    prompt = cells.get("prompt")
    return SequenceMismatch(
        place=f"{piece.unit} {piece.first + i}",
        facts={name: cells[name] for name in FACTS if isinstance(cells.get(name), str | int | float)},
        prompt=prompt if isinstance(prompt, str) else None,
        tokens=_token_texts(cells, len(row.train)),
        diffs=row.train.astype(np.float64) - row.rollout.astype(np.float64),
    )


def _token_texts(cells: Mapping[str, Any], length: int) -> tuple[str, ...]:
    for name, kind, form in (("tokens", str, "{}"), ("response_token_ids", int, " {}")):
        values = cells.get(name)
        if isinstance(values, list) and len(values) == length and all(isinstance(value, kind) for value in values):
            return tuple(form.format(value) for value in values)
    return tuple(f" #{position}" for position in range(length))


def _token(sequence: SequenceMismatch, row: Row, position: int) -> TokenMismatch:
    tokens = sequence.tokens
    return TokenMismatch(
        place=sequence.place,
        position=position,
        before="".join(tokens[max(0, position - CONTEXT) : position]),
        token=tokens[position],
        after="".join(tokens[position + 1 : position + 1 + CONTEXT]),
        train_logprob=float(row.train[position]),
        rollout_logprob=float(row.rollout[position]),
    )
