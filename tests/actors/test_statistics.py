"""The mismatch metrics against recorded vectors, against plain loops, and merged from any split."""

import doctest
import json
import math
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

import actors.statistics
from actors.statistics import MismatchSums, NonFiniteLogprob

VECTORS = sorted((Path(__file__).parents[1] / "data" / "vectors").glob("mismatch_*.json"))
Pair = tuple[NDArray[np.floating], NDArray[np.floating]]  # one sequence: a [T], b [T]


def sums_of(pairs: Sequence[Pair]) -> MismatchSums:
    if not pairs:
        return MismatchSums.from_logprobs(np.empty(0), np.empty(0), [])
    train, rollout = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
    return MismatchSums.from_logprobs(train, rollout, np.array([a.size for a, _ in pairs]))


def clip(value: float) -> float:
    return min(20.0, max(-20.0, value))


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def metrics_by_loops(pairs: list[Pair]) -> dict[str, float]:
    """Every formula of docs/method.md section 2, one token at a time."""
    kept = [(a.astype(float).tolist(), b.astype(float).tolist()) for a, b in pairs if a.size]
    train, rollout = [mean([-x for x in a]) for a, _ in kept], [mean([-x for x in b]) for _, b in kept]
    diffs = [[x - y for x, y in zip(a, b, strict=True)] for a, b in kept]
    means, totals = [mean(d) for d in diffs], [math.fsum(d) for d in diffs]
    d = [x for sequence in diffs for x in sequence]
    rho = [math.exp(clip(x)) for x in d]
    gaps = [abs(math.exp(x) - math.exp(y)) for a, b in kept for x, y in zip(a, b, strict=True)]
    return {
        "train_log_ppl": mean(train),
        "rollout_log_ppl": mean(rollout),
        "train_ppl": mean([math.exp(x) for x in train]),
        "rollout_ppl": mean([math.exp(x) for x in rollout]),
        "log_ppl_diff": mean([-x for x in means]),
        "log_ppl_abs_diff": mean([abs(x) for x in means]),
        "log_ppl_abs_diff_sum": mean([abs(x) for x in totals]),
        "log_ppl_diff_max": max(-x for x in means),
        "log_ppl_diff_min": min(-x for x in means),
        "ppl_ratio": mean([math.exp(clip(-x)) for x in means]),
        "kl": mean([-x for x in d]),
        "k3_kl": mean([math.expm1(clip(x)) - x for x in d]),
        "token_abs_diff": mean([abs(x) for x in d]),
        "token_abs_diff_max": max(abs(x) for x in d),
        "prob_abs_diff": mean(gaps),
        "prob_abs_diff_max": max(gaps),
        "chi2_token": mean([x * x for x in rho]) - 1,
        "chi2_seq": mean([math.exp(2 * clip(x)) for x in totals]) - 1,
        "ess_token": math.fsum(rho) ** 2 / (len(d) * math.fsum([x * x for x in rho])),
        "tokens": len(d),
        "sequences": len(kept),
    }


def sequence_batch(seed: int, lengths: list[int], drift: float) -> list[Pair]:
    rng = np.random.default_rng(seed)
    rollout = [-rng.exponential(0.7, size) for size in lengths]
    return [(b + rng.normal(0, drift, b.size), b) for b in rollout]


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_recorded_vectors_are_met(path: Path) -> None:
    vector = json.loads(path.read_text())
    columns = zip(vector["train_logprobs"], vector["rollout_logprobs"], strict=True)
    metrics = sums_of([(np.array(a, np.float32), np.array(b, np.float32)) for a, b in columns]).metrics()
    assert list(metrics) == list(vector["expected"])
    assert metrics == pytest.approx(vector["expected"], rel=1e-6, abs=0)


def test_there_are_vectors_to_meet() -> None:
    assert len(VECTORS) == 4


@pytest.mark.parametrize("drift", [0.0, 1e-4, 0.02, 1.0, 4.0, 12.0])
def test_the_metrics_equal_those_of_plain_loops(drift: float) -> None:
    pairs = sequence_batch(3, [5, 0, 1, 40, 1, 0, 13, 300], drift)
    assert sums_of(pairs).metrics() == pytest.approx(metrics_by_loops(pairs), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("drift", [-3.0, -4.7, -12.0, -19.9, -35.0, 35.0])
def test_ratios_that_all_lie_far_from_one_lose_no_digits(drift: float) -> None:
    train = np.array([-36.0, -37.5, -36.25])
    pairs: list[Pair] = [(train, train - drift + np.array([0.0, 0.1, -0.1]))]
    assert sums_of(pairs).metrics() == pytest.approx(metrics_by_loops(pairs), rel=1e-9, abs=1e-14)


def test_the_effective_sample_size_of_a_single_token_is_one_however_far_it_drifted() -> None:
    for drift in np.linspace(-25, 25, 101):
        ess = MismatchSums.from_logprobs([-30.0 + drift], [-30.0], [1]).metrics()["ess_token"]
        assert ess == pytest.approx(1.0, rel=1e-9)
        assert ess <= 1.0


def test_tiny_differences_do_not_cancel_to_nothing() -> None:
    metrics = MismatchSums.from_logprobs([-1e-8, -1.0 - 2e-8], [0.0, -1.0], [2]).metrics()
    d = [-1e-8, (-1.0 - 2e-8) + 1.0]
    assert metrics["k3_kl"] == pytest.approx(mean([x * x / 2 for x in d]), rel=1e-6)
    assert metrics["chi2_token"] == pytest.approx(mean([2 * x + 2 * x * x for x in d]), rel=1e-9)
    assert metrics["prob_abs_diff_max"] == pytest.approx(1e-8, rel=1e-7)


def test_the_absolute_value_is_taken_after_the_mean_over_a_sequence() -> None:
    metrics = MismatchSums.from_logprobs([-1.0, -2.0], [-2.0, -1.0], [2]).metrics()
    assert metrics["log_ppl_abs_diff"] == 0
    assert metrics["token_abs_diff"] == 1


def test_float32_columns_are_reduced_in_float64() -> None:
    pairs = [(a.astype(np.float32), b.astype(np.float32)) for a, b in sequence_batch(5, [70, 9, 2000], 0.01)]
    widened = [(a.astype(np.float64), b.astype(np.float64)) for a, b in pairs]
    assert sums_of(pairs) == sums_of(widened)


def test_no_sequences_give_no_metrics() -> None:
    assert MismatchSums.empty().metrics() == {}
    assert sums_of([]) == MismatchSums.empty()
    assert MismatchSums.from_logprobs([], [], [0, 0, 0]) == MismatchSums.empty()


def test_empty_sums_are_the_identity_of_merging() -> None:
    sums = sums_of(sequence_batch(1, [3, 4], 0.1))
    empty = MismatchSums.empty()
    assert sums.merge() == sums.merge(empty) == empty.merge(sums) == empty.merge(empty, sums, empty) == sums


def test_the_input_is_left_as_it_was() -> None:
    ((train, rollout),) = sequence_batch(2, [50], 0.1)
    before = train.copy(), rollout.copy()
    MismatchSums.from_logprobs(train, rollout, [50])
    np.testing.assert_array_equal((train, rollout), before)


def test_sums_are_plain_numbers_that_cross_processes() -> None:
    sums = sums_of(sequence_batch(1, [3, 4], 0.1))
    assert pickle.loads(pickle.dumps(sums)) == sums
    assert all(type(value) in (int, float) for value in sums.metrics().values())
    json.dumps(sums.metrics(), allow_nan=False)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", ["train", "rollout"])
def test_a_logprob_that_is_not_finite_is_named_by_sequence_token_and_column(column: str, value: float) -> None:
    columns = {"train": np.full(9, -0.5), "rollout": np.full(9, -0.5)}
    columns[column][6] = value
    with pytest.raises(NonFiniteLogprob, match=f"{column} log-prob of sequence 3, token 1") as raised:
        MismatchSums.from_logprobs(columns["train"], columns["rollout"], [0, 5, 0, 4])
    error = raised.value
    assert (error.sequence, error.token, error.column) == (3, 1, column)
    assert error.value == pytest.approx(value, nan_ok=True)


def test_the_same_infinity_in_both_columns_is_found_too() -> None:
    with pytest.raises(NonFiniteLogprob, match="train log-prob of sequence 0, token 0 is -inf"):
        MismatchSums.from_logprobs([-math.inf, math.nan], [-math.inf, -1.0], [1, 1])


def test_absurd_but_finite_logprobs_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = MismatchSums.from_logprobs([-3e38, -1.0], [-1.0, -900.0], [1, 1]).metrics()
        huge = MismatchSums.from_logprobs([-1e308, -1e308], [-1.0, -1.0], [2]).metrics()
    assert metrics["kl"] == pytest.approx(1.5e38)
    assert metrics["chi2_token"] == pytest.approx((math.exp(40) - 2) / 2)
    assert metrics["ess_token"] == pytest.approx(0.5)
    assert huge["train_log_ppl"] == math.inf


logprob = st.floats(-40, 0) | st.floats(-1e-3, 0)


@st.composite
def split_batch(draw: st.DrawFn) -> tuple[list[Pair], list[int]]:
    """Some sequences, and for each the rank that reduces it: up to 64 ranks, most of them often empty."""
    lengths = draw(st.lists(st.integers(0, 12), min_size=1, max_size=40))
    drift = draw(st.sampled_from([1e-7, 1e-3, 0.3, 5.0, 30.0]))
    seed = draw(st.integers(0, 2**32 - 1))
    ranks = draw(st.lists(st.integers(0, 63), min_size=len(lengths), max_size=len(lengths)))
    return sequence_batch(seed, lengths, drift), ranks


def mean_absolute_terms(pairs: list[Pair]) -> dict[str, float]:
    """What the tolerance of a merged metric is relative to: the mean of the absolute values it averages."""
    kept = [(a, b) for a, b in pairs if a.size]
    if not kept:
        return {}
    d = np.concatenate([a - b for a, b in kept])
    means, totals = (np.array([reduce(a - b) for a, b in kept]) for reduce in (np.mean, np.sum))
    signed = {
        "log_ppl_diff": np.abs(means).mean(),
        "kl": np.abs(d).mean(),
        "chi2_token": 1 + np.exp(2 * np.clip(d, -20, 20)).mean(),
        "chi2_seq": 1 + np.exp(2 * np.clip(totals, -20, 20)).mean(),
    }
    return {key: abs(value) for key, value in sums_of(pairs).metrics().items()} | signed


@settings(max_examples=150, deadline=None)
@given(split_batch())
def test_merging_the_ranks_of_any_split_equals_the_whole(batch: tuple[list[Pair], list[int]]) -> None:
    pairs, ranks = batch
    parts = [sums_of([pair for pair, owner in zip(pairs, ranks, strict=True) if owner == rank]) for rank in range(64)]
    whole, merged = sums_of(pairs).metrics(), parts[0].merge(*parts[1:]).metrics()
    assert list(merged) == list(whole)
    for key, scale in mean_absolute_terms(pairs).items():
        assert abs(merged[key] - whole[key]) <= 1e-9 * scale, key


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float64, 9, elements=logprob),
    arrays(np.float64, 9, elements=logprob),
    st.lists(st.integers(0, 3), min_size=2, max_size=2),
)
def test_merging_is_associative_up_to_rounding(
    train: NDArray[np.float64], rollout: NDArray[np.float64], cut: list[int]
) -> None:
    first, second = cut[0] + 1, cut[0] + cut[1] + 2
    pairs: list[Pair] = [(train[i:j], rollout[i:j]) for i, j in ((0, first), (first, second), (second, 9))]
    a, b, c = (sums_of([pair]) for pair in pairs)
    left, right = a.merge(b).merge(c), a.merge(b.merge(c))
    assert left.metrics() == pytest.approx(right.metrics(), rel=1e-9, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(arrays(np.float64, st.integers(1, 30), elements=logprob), st.floats(-30, 30))
def test_the_effective_sample_size_lies_in_zero_to_one(train: NDArray[np.float64], shift: float) -> None:
    ess = MismatchSums.from_logprobs(train, train[::-1] + shift, [train.size]).metrics()["ess_token"]
    assert 0 < ess <= 1


def test_the_examples_in_the_docstrings_run() -> None:
    results: Any = doctest.testmod(actors.statistics)
    assert results.attempted and not results.failed
