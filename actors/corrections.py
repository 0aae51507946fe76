"""Importance corrections: what a token's loss is multiplied by because the sampler was another engine.

Weights are made of d = a - b, the log-probs of a token under learner and sampler, and are constants to the gradient
(docs/method.md section 5). A weight of 0 silences a token; a dropped sequence leaves the loss's denominator, too.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from actors.logprob_pairs import CLIP
from actors.misfit import Misfit
from actors.settings import Settings
from actors.sums import MAX, SUM, Sums

Floats = NDArray[np.float64]
Bound = Annotated[float, Field(ge=0)]


class TokenWeights(NamedTuple):
    """What a correction makes of N sequences with T tokens together.

    Example:
        TokenWeights(weights=array([1.1, 0.9, 0.0]), dropped=array([False, True]))
    """

    weights: Floats  # [T], 0 for every token of a dropped sequence
    dropped: NDArray[np.bool_]  # [N]


class Correction(Settings, ABC):
    """The `learner.correction:` block, one class per kind."""

    by_token: ClassVar[bool] = False  # whether a token's weight hangs on its own log-probs alone

    def weigh(
        self, train: NDArray[np.floating[Any]], rollout: NDArray[np.floating[Any]], lengths: list[int]
    ) -> TokenWeights:
        """Weights of the tokens of concatenated sequences.

        Args:
            train: [T] natural logarithms under the learner.
            rollout: [T] the same as the sampler reported them.
            lengths: [N] tokens per sequence, zeros allowed; they add up to T.
        """
        diff = np.subtract(train, rollout, dtype=np.float64)
        return self.of_differences(diff, np.asarray(lengths, np.int64))

    @abstractmethod
    def of_differences(self, diff: Floats, lengths: NDArray[np.int64]) -> TokenWeights:
        """Weights from d [T] of sequences with those lengths [N]."""


class NoCorrection(Correction):
    """No importance correction: every token weighs 1."""

    kind: Literal["none"] = "none"
    by_token = True

    def of_differences(self, diff: Floats, lengths: NDArray[np.int64]) -> TokenWeights:
        return _kept(np.ones_like(diff), lengths)


class TokenTis(Correction):
    """Truncated importance sampling, token by token: min(rho, cap).

    >>> TokenTis().weigh(np.log([0.5, 0.9]), np.log([0.1, 0.9]), lengths=[2]).weights.tolist()
    [2.0, 1.0]
    """

    kind: Literal["token_tis"] = "token_tis"
    by_token = True
    cap: float = Field(2.0, gt=0)

    def of_differences(self, diff: Floats, lengths: NDArray[np.int64]) -> TokenWeights:
        return _kept(np.minimum(_ratio(diff), self.cap), lengths)


class SequenceTis(Correction):
    """Truncated importance sampling of whole sequences: min(exp(sum of d), cap), the same for all tokens.

    >>> SequenceTis().weigh(np.log([0.5, 0.5]), np.log([0.4, 0.4]), lengths=[2]).weights.round(4).tolist()
    [1.5625, 1.5625]
    """

    kind: Literal["sequence_tis"] = "sequence_tis"
    cap: float = Field(2.0, gt=0)

    def of_differences(self, diff: Floats, lengths: NDArray[np.int64]) -> TokenWeights:
        return _kept(np.repeat(np.minimum(_ratio(_sums(diff, lengths)), self.cap), lengths), lengths)


class Masking(Correction):
    """A correction that keeps what lies in [lo, hi]."""

    lo: Bound
    hi: Bound

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.lo > self.hi:
            raise Misfit("lo", self.lo, f"at most hi, which is {self.hi:g}")
        return self

    def _inside(self, ratio: Floats) -> NDArray[np.bool_]:
        return (ratio >= self.lo) & (ratio <= self.hi)


class TokenMask(Masking):
    """rho where it lies in [lo, hi], else 0 (IcePop).

    >>> TokenMask().weigh(np.log([0.2, 0.9]), np.log([0.5, 0.9]), lengths=[2]).weights.tolist()
    [0.0, 1.0]
    """

    kind: Literal["token_mask"] = "token_mask"
    by_token = True
    lo: Bound = 0.5
    hi: Bound = 5.0

    def of_differences(self, diff: Floats, lengths: NDArray[np.int64]) -> TokenWeights:
        ratio = _ratio(diff)
        return _kept(np.where(self._inside(ratio), ratio, 0.0), lengths)


class SequenceMask(Masking):
    """exp(sum of d) where it lies in [lo, hi], else the sequence is dropped (MIS).

    >>> SequenceMask().weigh(np.log([0.9, 0.5]), np.log([0.9, 0.2]), lengths=[1, 1])
    TokenWeights(weights=array([1., 0.]), dropped=array([False,  True]))
    """

    kind: Literal["sequence_mask"] = "sequence_mask"
    lo: Bound = 0.0
    hi: Bound = 2.0

    def of_differences(self, diff: Floats, lengths: NDArray[np.int64]) -> TokenWeights:
        ratio = _ratio(_sums(diff, lengths))
        return _dropping(ratio, ~self._inside(ratio), lengths)


class GeometricMask(Masking):
    """1 where the geometric mean of the ratios, exp(mean of d), lies in [lo, hi], else the sequence is dropped.

    >>> GeometricMask().weigh(np.log([0.9, 0.5]), np.log([0.9, 0.4]), lengths=[1, 1])
    TokenWeights(weights=array([1., 0.]), dropped=array([False,  True]))
    """

    kind: Literal["geometric_mask"] = "geometric_mask"
    lo: Bound = 0.999
    hi: Bound = 1.001

    def of_differences(self, diff: Floats, lengths: NDArray[np.int64]) -> TokenWeights:
        ratio = _ratio(_sums(diff, lengths) / np.maximum(lengths, 1))
        return _dropping(np.ones_like(ratio), ~self._inside(ratio), lengths)


CorrectionConfig = Annotated[
    NoCorrection | TokenTis | SequenceTis | TokenMask | SequenceMask | GeometricMask, Field(discriminator="kind")
]


def _ratio(log_ratio: Floats) -> Floats:
    ratio: Floats = np.exp(np.clip(log_ratio, -CLIP, CLIP))
    return ratio


def _sums(diff: Floats, lengths: NDArray[np.int64]) -> Floats:
    """[N] sum of d over each sequence; 0 over an empty one."""
    sums = np.zeros(lengths.size)
    starts = np.cumsum(lengths) - lengths
    if diff.size:
        sums[lengths > 0] = np.add.reduceat(diff, starts[lengths > 0])
    return sums


def _kept(weights: Floats, lengths: NDArray[np.int64]) -> TokenWeights:
    return TokenWeights(weights, np.zeros(lengths.size, np.bool_))


def _dropping(per_sequence: Floats, dropped: NDArray[np.bool_], lengths: NDArray[np.int64]) -> TokenWeights:
    return TokenWeights(np.repeat(np.where(dropped, 0.0, per_sequence), lengths), dropped)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionSums(Sums):
    """What a correction did to some sequences, as sums that merge exactly over ranks and micro-batches.

    Example:
        CorrectionSums(tokens=12, tokens_kept=9, tokens_counted=10, sequences=3, sequences_kept=2, weight=9.3,
                       weight_squared=9.8, weight_max=1.4)
    """

    tokens: int = field(default=0, metadata=SUM)
    tokens_kept: int = field(default=0, metadata=SUM)  # with a weight above 0
    tokens_counted: int = field(default=0, metadata=SUM)  # of sequences that were not dropped: the loss's denominator
    sequences: int = field(default=0, metadata=SUM)
    sequences_kept: int = field(default=0, metadata=SUM)  # not dropped
    weight: float = field(default=0.0, metadata=SUM)
    weight_squared: float = field(default=0.0, metadata=SUM)
    weight_max: float = field(default=0.0, metadata=MAX)

    @classmethod
    def of(cls, weighed: TokenWeights, lengths: list[int]) -> "CorrectionSums":
        """The sums over sequences of these lengths [N]."""
        weights, kept = weighed.weights, ~weighed.dropped
        return cls(
            tokens=weights.size,
            tokens_kept=int(np.count_nonzero(weights)),
            tokens_counted=int(np.asarray(lengths, np.int64)[kept].sum()),
            sequences=kept.size,
            sequences_kept=int(kept.sum()),
            weight=float(weights.sum()),
            weight_squared=float(np.square(weights).sum()),
            weight_max=float(weights.max(initial=0.0)),
        )

    def metrics(self) -> dict[str, float]:
        """The metrics by their bare names, over all response tokens; none when there is no token.

        The effective sample size is (sum w)^2 / (tokens * sum w^2), absent when every weight is 0.
        """
        if not self.tokens:
            return {}
        measured = {
            "tokens_kept": self.tokens_kept / self.tokens,
            "sequences_kept": self.sequences_kept / self.sequences,
            "weight_mean": self.weight / self.tokens,
            "weight_max": self.weight_max,
        }
        if self.weight_squared > 0:
            measured["ess"] = min(1.0, self.weight**2 / (self.tokens * self.weight_squared))
        return measured
