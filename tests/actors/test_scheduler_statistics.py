"""What the scheduler makes of dropped sequences, corrections and the two halves of a gradient."""

import json
import math

import pytest
from scheduler_inputs import constant, decide, report

from actors.corrections import CorrectionSums
from actors.gradient_noise import HalfSums

# Of 12 tokens in 4 sequences, 9 in 2 sequences were kept. Two ranks measured it, each a part.
PARTS = (
    CorrectionSums(
        tokens=5,
        tokens_kept=3,
        tokens_counted=4,
        sequences=2,
        sequences_kept=1,
        weight=3.5,
        weight_squared=4.25,
        weight_max=1.5,
    ),
    CorrectionSums(
        tokens=7,
        tokens_kept=5,
        tokens_counted=5,
        sequences=2,
        sequences_kept=1,
        weight=5.5,
        weight_squared=6.5,
        weight_max=1.25,
    ),
)
REGAIN = {"token_mean": 12 / 9, "sequence_mean": 4 / 2, "constant": 4 / 2}
NOISE_KEYS = {"gradient/signal", "gradient/noise", "gradient/noise_scale"}
# One sequence of two tokens in each half. g1 = 3, g2 = 1 of a step divided by all four tokens.
EQUAL = HalfSums(first_square=2.25, second_square=0.25, product=0.75, first_tokens=1, first_sequences=1)


def of_halves(signal: float, noise: float) -> HalfSums:
    """Of four prompts and a report of two tokens, half of them in half 1: noise = |g1 - g2|^2."""
    return HalfSums(
        first_square=(noise + 2 * signal) / 4, second_square=0.0, product=signal / 4, first_tokens=1, first_sequences=1
    )


@pytest.mark.parametrize("loss", REGAIN)
def test_dropped_sequences_leave_the_denominator_of_norm_loss_and_gradient(loss: str) -> None:
    reports = [report(9.0, loss=0.25, correction=PARTS[0]), report(16.0, loss=0.5, correction=PARTS[1])]
    order = decide(constant(grad_clip=100.0, loss=loss), reports)
    assert order.metrics["gradient/norm"] == pytest.approx(5 * REGAIN[loss])
    assert order.metrics["gradient/norm_smoothed"] == order.metrics["gradient/norm"]
    assert order.metrics["policy/loss"] == pytest.approx(0.75 * REGAIN[loss])
    assert order.grad_scale == pytest.approx(REGAIN[loss])
    assert order.metrics["gradient/clipped"] == 0.0


@pytest.mark.parametrize("loss", REGAIN)
def test_a_gradient_is_clipped_by_the_norm_it_has_without_the_dropped_sequences(loss: str) -> None:
    reports = [report(9.0, correction=PARTS[0]), report(16.0, correction=PARTS[1])]
    order = decide(constant(grad_clip=6.0, loss=loss), reports)
    assert 5.0 * order.grad_scale == pytest.approx(6.0, rel=1e-6)
    assert order.metrics["gradient/clipped"] == 1.0
    assert decide(constant(grad_clip=11.0, loss=loss), reports).metrics["gradient/clipped"] == 0.0


def test_a_silenced_token_is_no_dropped_one() -> None:
    silenced = CorrectionSums(tokens=2, tokens_kept=0, tokens_counted=2, sequences=1, sequences_kept=1)
    order = decide(constant(grad_clip=100.0), [report(4.0, correction=silenced)])
    assert order.update
    assert (order.grad_scale, order.metrics["gradient/norm"]) == (1.0, 2.0)


def test_correction_metrics_are_those_of_all_ranks_together() -> None:
    order = decide(constant(correction={"kind": "sequence_mask"}), [report(correction=part) for part in PARTS])
    measured = {key: value for key, value in order.metrics.items() if key.startswith("correction/")}
    assert measured == pytest.approx(
        {
            "correction/tokens_kept": 8 / 12,
            "correction/sequences_kept": 2 / 4,
            "correction/weight_mean": 9.0 / 12,
            "correction/weight_max": 1.5,
            "correction/ess": 9.0**2 / (12 * 10.75),
        }
    )


def test_without_a_correction_there_are_no_correction_metrics() -> None:
    order = decide(constant(), [report(correction=part) for part in PARTS])
    assert not any(key.startswith("correction/") for key in order.metrics)


def test_signal_and_noise_are_logged_with_the_ratio_of_their_averages() -> None:
    metrics = decide(constant(), [report(halves=EQUAL)]).metrics
    assert {key: metrics[key] for key in NOISE_KEYS} == pytest.approx(
        {"gradient/signal": 3.0, "gradient/noise": 4.0, "gradient/noise_scale": 4 / 3}
    )


def test_the_noise_scale_follows_signal_and_noise_by_a_twentieth() -> None:
    scheduler = constant()
    decide(scheduler, [report(halves=of_halves(signal=2.0, noise=6.0))])
    metrics = decide(scheduler, [report(halves=of_halves(signal=4.0, noise=26.0))], step=1).metrics
    assert metrics["gradient/signal"] == pytest.approx(4.0)
    assert metrics["gradient/noise"] == pytest.approx(26.0)
    assert metrics["gradient/noise_scale"] == pytest.approx((0.05 * 26 + 0.95 * 6) / (0.05 * 4 + 0.95 * 2))


def test_the_noise_scale_is_absent_while_the_smoothed_signal_is_not_positive() -> None:
    scheduler = constant()
    scales = [
        decide(scheduler, [report(halves=of_halves(signal, 5.0))], step=step).metrics.get("gradient/noise_scale")
        for step, signal in enumerate([-1.0, 18.0, 2.0])  # smoothed: -1, -0.05, 0.0525
    ]
    assert scales == [None, None, pytest.approx(5.0 / 0.0525)]


@pytest.mark.parametrize("loss", REGAIN)
def test_each_half_is_divided_by_what_is_left_of_its_own(loss: str) -> None:
    # Half 1 kept 4 tokens in 1 sequence, half 2 the other 5 in 1. The step was divided by all 12 tokens or 4 sequences.
    halves = (
        HalfSums(first_square=0.5, second_square=0.25, product=0.125, first_tokens=4, first_sequences=1),
        HalfSums(first_square=0.5, second_square=0.5, product=0.375),
    )
    reports = [report(correction=part, halves=half) for part, half in zip(PARTS, halves, strict=True)]
    one, two = (12 / 4, 12 / 5) if loss == "token_mean" else (4 / 1, 4 / 1)
    metrics = decide(constant(loss=loss), reports).metrics
    assert metrics["gradient/signal"] == pytest.approx(one * two * 0.5)
    assert metrics["gradient/noise"] == pytest.approx(one**2 * 1.0 - 2 * one * two * 0.5 + two**2 * 0.75)


def test_without_an_estimate_no_noise_is_logged_and_the_averages_stay() -> None:
    scheduler = constant()
    decide(scheduler, [report(halves=of_halves(signal=2.0, noise=6.0))])
    for step, reports in enumerate(
        (
            [report()],  # no halves
            [report(math.nan, nonfinite=1, halves=of_halves(signal=math.nan, noise=math.nan))],
            [report(halves=of_halves(1.0, 1.0), correction=CorrectionSums(tokens=2, sequences=1))],  # all dropped
            [],
        ),
        start=1,
    ):
        assert not NOISE_KEYS & decide(scheduler, reports, step=step).metrics.keys()
    metrics = decide(scheduler, [report(halves=of_halves(signal=2.0, noise=6.0))], step=9).metrics
    assert metrics["gradient/noise_scale"] == pytest.approx(3.0)


def test_a_single_prompt_has_no_noise() -> None:
    order = constant().decide(0, [report(halves=EQUAL)], {}, num_prompts=1)
    assert not NOISE_KEYS & order.metrics.keys()
    assert order.update


def test_the_averages_of_signal_and_noise_are_part_of_the_saved_state() -> None:
    scheduler, restored = constant(), constant()
    decide(scheduler, [report(halves=of_halves(signal=2.0, noise=6.0))])
    restored.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
    reports = [report(halves=of_halves(signal=1.0, noise=9.0))]
    metrics = decide(restored, reports, step=1).metrics
    assert metrics == decide(scheduler, reports, step=1).metrics
    assert metrics["gradient/noise_scale"] < 9.0
