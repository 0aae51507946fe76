"""The two-halves estimate by hand and against a linear-Gaussian problem whose truth is known."""

import doctest
import json

import numpy as np
import pytest

import actors.gradient_noise
from actors.gradient_noise import HalfSums, NoiseScale, two_halves

DIMENSIONS, DRAWS = 40, 2000
# Gradients of prompts: x_i = MEAN + MIX z_i, z_i standard normal, so their covariance is MIX MIX^T. |MEAN|^2 equals its
# trace, so that signal and noise are of a size and a mistake in either shows.
MIX = np.random.default_rng(1).normal(size=(DIMENSIONS, DIMENSIONS))
TRACE = float(np.square(MIX).sum())
MEAN = np.full(DIMENSIONS, np.sqrt(TRACE / DIMENSIONS))
SIGNAL = float(MEAN @ MEAN)


def test_the_examples_in_the_docstrings_are_true() -> None:
    assert doctest.testmod(actors.gradient_noise) == (0, 3)


def half_sums(contributions: np.ndarray) -> HalfSums:
    """Of the contributions [B, D] of the prompts of a batch; even places are half 1."""
    one, two = contributions[::2].sum(axis=0), contributions[1::2].sum(axis=0)
    return HalfSums(first_square=float(one @ one), second_square=float(two @ two), product=float(one @ two))


def mean_estimate(num_prompts: int, ragged: bool, own_divisors: bool = True) -> tuple[float, float]:
    """Signal and noise of the token_mean gradient sum_i T_i x_i / sum_i T_i, averaged over many batches.

    Token counts T_i are all equal, or exponential: coefficient of variation 1.
    """
    rng = np.random.default_rng(num_prompts)
    estimates = []
    for _ in range(DRAWS):
        gradients = MEAN + rng.normal(size=(num_prompts, DIMENSIONS)) @ MIX.T
        tokens = np.ceil(rng.exponential(1000, num_prompts)) if ragged else np.full(num_prompts, 1000.0)
        share = float(tokens[::2].sum() / tokens.sum()) if own_divisors else 0.5
        sums = half_sums(tokens[:, None] * gradients / tokens.sum())
        estimates.append(two_halves(sums, (share, 1 - share), num_prompts))
    signal, noise = np.mean(estimates, axis=0)
    return float(signal), float(noise)


# Statistical error of the means over 2,000 draws, to be compared with the tolerances below. With S = TRACE and
# tr(Sigma^2) about 2 S^2 / D for such a matrix (measured: 0.05 S^2), noise = |N(0, Sigma)|^2 has the relative variance
# 2 tr(Sigma^2) / S^2 = 0.1, so its mean errs by sqrt(0.1 / 2000) = 0.7%. Signal has the variance
# mu' Sigma mu (1/B1 + 1/B2) + tr(Sigma^2) / (B1 B2), at most 0.06 S^2 for B = 3, so its mean errs by 0.6% at most.
# Ragged counts add the variance of sum T_i^2 / (sum T_i)^2 to it: noise errs by 1% then.


@pytest.mark.parametrize("num_prompts", [3, 64])
def test_with_equal_token_counts_signal_and_noise_are_the_true_ones(num_prompts: int) -> None:
    signal, noise = mean_estimate(num_prompts, ragged=False)
    assert signal == pytest.approx(SIGNAL, rel=0.05)
    assert noise == pytest.approx(TRACE, rel=0.05)


# The truth with ragged token counts. T_i and x_i are independent, so E[g | T] = mu whatever T, and
# Cov(g) = Sigma E[sum T_i^2 / (sum T_i)^2]: signal is |mu|^2 without bias, and the trace of the per-prompt covariance
# of the token-weighted gradient is B tr Cov(g), about (1 + cv^2) tr Sigma. For exponential T_i the shares T_i / sum T
# are uniform on the simplex, E[share^2] = 2 / (B (B + 1)), and the truth is exactly 2B / (B + 1) tr Sigma. The
# estimate's own expectation is, of two halves of B/2 such prompts, 2B / (B + 2) tr Sigma: 1.5% below for B = 64.
def test_with_ragged_token_counts_they_are_those_of_the_token_weighted_gradient() -> None:
    signal, noise = mean_estimate(64, ragged=True)
    assert signal == pytest.approx(SIGNAL, rel=0.1)
    assert noise == pytest.approx(2 * 64 / 65 * TRACE, rel=0.1)


# With one common divisor T/2 for both halves g1 - g2 keeps 2 mu (T1 - T2) / T, which adds B |mu|^2 E[(T1 - T2)^2 / T^2]
# = B / (B + 1) |mu|^2 to noise: half of the truth, as |mu|^2 is tr Sigma here.
def test_a_common_divisor_instead_of_each_half_s_own_would_inflate_the_noise_by_half() -> None:
    _, noise = mean_estimate(64, ragged=True, own_divisors=False)
    assert noise == pytest.approx(1.5 * 2 * 64 / 65 * TRACE, rel=0.1)


def test_the_halves_of_an_odd_number_of_prompts_are_weighted_by_their_numbers() -> None:
    sums = half_sums(np.array([[3.0], [2.0], [3.0]]) / 3)
    assert two_halves(sums, (2 / 3, 1 / 3), num_prompts=3) == pytest.approx((6.0, 2 * 1 / 3 * 1.0))


def test_signal_may_be_negative_and_noise_may_not() -> None:
    signal, noise = two_halves(half_sums(np.array([[1.0], [-1.0]]) / 2), (0.5, 0.5), 2)
    assert (signal, noise) == (-1.0, 0.5 * 4.0)
    rounding = HalfSums(first_square=0.1, second_square=0.1, product=0.1 * (1 + 1e-12))
    assert two_halves(rounding, (0.5, 0.5), 2)[1] == 0.0


@pytest.mark.parametrize(
    ("shares", "num_prompts"), [((1.0, 0.0), 1), ((0.5, 0.5), 1), ((0.0, 0.0), 0), ((1.0, 0.0), 4), ((0.0, 1.0), 4)]
)
def test_with_less_than_two_prompts_or_an_empty_half_there_is_no_estimate(
    shares: tuple[float, float], num_prompts: int
) -> None:
    assert two_halves(HalfSums(first_square=1.0, second_square=1.0, product=1.0), shares, num_prompts) is None


def test_shards_of_the_gradient_add_up() -> None:
    contributions = np.random.default_rng(2).normal(size=(6, 12))
    merged = HalfSums().merge(*(half_sums(columns) for columns in np.split(contributions, [3, 3, 10], axis=1)))
    whole = half_sums(contributions)
    assert two_halves(merged, (0.6, 0.4), 6) == pytest.approx(two_halves(whole, (0.6, 0.4), 6))


def test_signal_and_noise_are_smoothed_each_on_its_own_by_a_twentieth() -> None:
    scale = NoiseScale()
    assert scale.observe(signal=2.0, noise=6.0) == 3.0
    expected = (0.05 * 26.0 + 0.95 * 6.0) / (0.05 * 4.0 + 0.95 * 2.0)
    assert scale.observe(signal=4.0, noise=26.0) == pytest.approx(expected)
    assert expected != pytest.approx(0.05 * 26 / 4 + 0.95 * 3)  # what smoothing the ratio would give


def test_the_scale_is_absent_while_the_smoothed_signal_is_not_positive_and_comes_back() -> None:
    scale = NoiseScale()
    assert scale.observe(signal=-1.0, noise=5.0) is None
    assert scale.observe(signal=18.0, noise=5.0) is None  # smoothed: -0.05
    assert scale.observe(signal=2.0, noise=5.0) == pytest.approx(5.0 / (0.05 * 2 - 0.95 * 0.05))


def test_a_scale_restored_from_json_goes_on_like_the_one_that_saved_it() -> None:
    scale, restored = NoiseScale(), NoiseScale()
    assert scale.state_dict() == {"signal": None, "noise": None}
    scale.observe(signal=2.0, noise=6.0)
    restored.load_state_dict(json.loads(json.dumps(scale.state_dict())))
    assert restored.observe(signal=3.0, noise=1.0) == scale.observe(signal=3.0, noise=1.0)
