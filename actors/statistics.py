"""Training-inference mismatch as sums, counts and extremes, which merge exactly over any split of the sequences."""

import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actors.logprob_pairs import CLIP, LogprobPairs, NonFiniteLogprob
from actors.sums import MAX, MIN, SUM, Sums

__all__ = ["MismatchSums", "NonFiniteLogprob"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MismatchSums(Sums):
    """Sufficient statistics of the mismatch metrics (docs/method.md section 2) over some sequences.

    A field with a metric's name holds the sum (or the extreme) of that metric's terms, in float64. Below, a and b are a
    token's log-probs under learner and sampler, d = a - b and rho = exp(d) with d clipped to +-20.

    Example, of one sequence of two tokens with a = (-1.0, -0.5) and b = (-1.0, -0.7):
        MismatchSums(tokens=2, kl=-0.2, k3_kl=0.0214, token_abs_diff=0.2, token_abs_diff_max=0.2, prob_abs_diff=0.11,
                     prob_abs_diff_max=0.11, chi2_token=0.492, ratio=2.22, ratio_squared=2.49, sequences=1,
                     train_log_ppl=0.75, rollout_log_ppl=0.85, train_ppl=2.12, rollout_ppl=2.34, log_ppl_diff=-0.1,
                     log_ppl_abs_diff=0.1, log_ppl_abs_diff_sum=0.2, log_ppl_diff_max=-0.1, log_ppl_diff_min=-0.1,
                     ppl_ratio=0.905, chi2_seq=0.492)

    >>> sums = MismatchSums.from_logprobs([-1.0, -0.5], [-1.0, -0.7], lengths=[2])
    >>> round(sums.metrics()["kl"], 6), round(sums.merge(sums).chi2_seq, 3)
    (-0.1, 0.984)
    """

    # One term per token.
    tokens: int = field(default=0, metadata=SUM)
    kl: float = field(default=0.0, metadata=SUM)
    k3_kl: float = field(default=0.0, metadata=SUM)
    token_abs_diff: float = field(default=0.0, metadata=SUM)
    token_abs_diff_max: float = field(default=-math.inf, metadata=MAX)
    prob_abs_diff: float = field(default=0.0, metadata=SUM)
    prob_abs_diff_max: float = field(default=-math.inf, metadata=MAX)
    chi2_token: float = field(default=0.0, metadata=SUM)  # of rho^2 - 1
    ratio: float = field(default=0.0, metadata=SUM)  # of rho
    ratio_squared: float = field(default=0.0, metadata=SUM)  # of rho^2
    # One term per sequence.
    sequences: int = field(default=0, metadata=SUM)
    train_log_ppl: float = field(default=0.0, metadata=SUM)
    rollout_log_ppl: float = field(default=0.0, metadata=SUM)
    train_ppl: float = field(default=0.0, metadata=SUM)
    rollout_ppl: float = field(default=0.0, metadata=SUM)
    log_ppl_diff: float = field(default=0.0, metadata=SUM)
    log_ppl_abs_diff: float = field(default=0.0, metadata=SUM)
    log_ppl_abs_diff_sum: float = field(default=0.0, metadata=SUM)
    log_ppl_diff_max: float = field(default=-math.inf, metadata=MAX)
    log_ppl_diff_min: float = field(default=math.inf, metadata=MIN)
    ppl_ratio: float = field(default=0.0, metadata=SUM)
    chi2_seq: float = field(default=0.0, metadata=SUM)  # of exp(2 clip(sum of d)) - 1

    @classmethod
    def empty(cls) -> Self:
        """The statistics of no sequence at all: merging them changes nothing."""
        return cls()

    @classmethod
    def from_logprobs(cls, train: ArrayLike, rollout: ArrayLike, lengths: ArrayLike) -> "MismatchSums":
        """Reduce the log-probs of N concatenated sequences, T tokens together.

        Args:
            train: [T] natural logarithms under the learner, float32 or float64.
            rollout: [T] the same as the sampler reported them.
            lengths: [N] tokens per sequence; empty sequences are left out.

        Raises:
            NonFiniteLogprob: the first log-prob that is NaN or infinite.
            ValueError: an array of the wrong shape or type, or lengths that do not add up to T.
        """
        # Only who reduces log-probs needs the compiler, which takes a fifth of a second to load.
        from actors.sequence_sums import sequence_sums  # noqa: PLC0415

        pairs = LogprobPairs(train, rollout, lengths)
        sums = sequence_sums(pairs.train, pairs.rollout, pairs.ends)
        with np.errstate(all="ignore"):
            whole = _of_sequences(sums, np.diff(pairs.ends, prepend=0))
        if not math.isfinite(whole.train_log_ppl + whole.kl):  # cheaper than to look at every token beforehand
            pairs.refuse_nonfinite()
        return whole

    def metrics(self) -> dict[str, float]:
        """The metrics by their bare names, without the `mismatch/` prefix; none when there is no token."""
        if not self.tokens:
            return {}
        tokens, sequences = self.tokens, self.sequences
        return {
            "train_log_ppl": self.train_log_ppl / sequences,
            "rollout_log_ppl": self.rollout_log_ppl / sequences,
            "train_ppl": self.train_ppl / sequences,
            "rollout_ppl": self.rollout_ppl / sequences,
            "log_ppl_diff": self.log_ppl_diff / sequences,
            "log_ppl_abs_diff": self.log_ppl_abs_diff / sequences,
            "log_ppl_abs_diff_sum": self.log_ppl_abs_diff_sum / sequences,
            "log_ppl_diff_max": self.log_ppl_diff_max,
            "log_ppl_diff_min": self.log_ppl_diff_min,
            "ppl_ratio": self.ppl_ratio / sequences,
            "kl": self.kl / tokens,
            "k3_kl": self.k3_kl / tokens,
            "token_abs_diff": self.token_abs_diff / tokens,
            "token_abs_diff_max": self.token_abs_diff_max,
            "prob_abs_diff": self.prob_abs_diff / tokens,
            "prob_abs_diff_max": self.prob_abs_diff_max,
            "chi2_token": self.chi2_token / tokens,
            "chi2_seq": self.chi2_seq / sequences,
            "ess_token": min(1.0, self.ratio**2 / (tokens * self.ratio_squared)),  # rounding may carry it above 1
            "tokens": tokens,
            "sequences": sequences,
        }


def _of_sequences(sums: NDArray[np.float64], lengths: NDArray[np.int64]) -> MismatchSums:
    """What follows from the rows of `sequence_sums` [., N] and the number of tokens of each sequence [N]."""
    train_log_ppl, rollout_log_ppl, log_ppl_diff = -sums[:3] / lengths
    diff = sums[2]
    totals, largest = sums[3:9].sum(axis=1), sums[9:].max(axis=1, initial=-math.inf)
    abs_diff, k3, prob_abs_diff, chi2, ratio, ratio_squared = totals.tolist()
    return MismatchSums(
        tokens=int(lengths.sum()),
        kl=-float(diff.sum()),
        k3_kl=k3,
        token_abs_diff=abs_diff,
        token_abs_diff_max=float(largest[0]),
        prob_abs_diff=prob_abs_diff,
        prob_abs_diff_max=float(largest[1]),
        chi2_token=chi2,
        ratio=ratio,
        ratio_squared=ratio_squared,
        sequences=lengths.size,
        train_log_ppl=float(train_log_ppl.sum()),
        rollout_log_ppl=float(rollout_log_ppl.sum()),
        train_ppl=float(np.exp(train_log_ppl).sum()),
        rollout_ppl=float(np.exp(rollout_log_ppl).sum()),
        log_ppl_diff=float(log_ppl_diff.sum()),
        log_ppl_abs_diff=float(np.abs(log_ppl_diff).sum()),
        log_ppl_abs_diff_sum=float(np.abs(diff).sum()),
        log_ppl_diff_max=float(log_ppl_diff.max(initial=-math.inf)),
        log_ppl_diff_min=float(log_ppl_diff.min(initial=math.inf)),
        ppl_ratio=float(np.exp(np.clip(log_ppl_diff, -CLIP, CLIP)).sum()),
        chi2_seq=float(np.expm1(2 * np.clip(diff, -CLIP, CLIP)).sum()),
    )
