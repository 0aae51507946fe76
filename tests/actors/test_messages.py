"""What crosses a process boundary: frozen, and merged by adding up."""

import math
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from actors.corrections import CorrectionSums, TokenTis
from actors.gradient_noise import HalfSums
from actors.messages import GradientReport, SampleRequest, UpdateReport
from actors.statistics import MismatchSums


def report(scale: float, tokens: int) -> GradientReport:
    rollout = -np.linspace(0.5, 1.5, tokens)
    train = rollout - 0.1 * scale
    return GradientReport(
        mismatch=MismatchSums.from_logprobs(train, rollout, [tokens]),
        correction=CorrectionSums.of(TokenTis().weigh(train, rollout, [tokens]), [tokens]),
        halves=HalfSums(first_square=scale, second_square=1.0, product=-scale, first_tokens=tokens, first_sequences=1),
        entropy_sum=scale,
        loss=-scale,
        grad_square_sum=2 * scale,
        nonfinite=tokens,
    )


def test_reports_of_all_ranks_add_up() -> None:
    one, other = report(1.0, 3), report(0.5, 2)
    assert GradientReport().merge(one, other) == GradientReport(
        mismatch=one.mismatch.merge(other.mismatch),
        correction=one.correction.merge(other.correction),
        halves=HalfSums(first_square=1.5, second_square=2.0, product=-1.5, first_tokens=5, first_sequences=2),
        entropy_sum=1.5,
        loss=-1.5,
        grad_square_sum=3.0,
        nonfinite=5,
    )
    assert GradientReport().merge(one, other).correction.tokens == 5


def test_the_report_of_a_single_rank_is_the_merged_one() -> None:
    assert GradientReport().merge(report(1.0, 3)) == report(1.0, 3)


def test_no_reports_are_a_report_of_nothing() -> None:
    merged = GradientReport().merge()
    assert merged.mismatch.metrics() == merged.correction.metrics() == {}
    assert merged.halves == HalfSums()
    assert (merged.entropy_sum, merged.loss, merged.grad_square_sum, merged.nonfinite) == (0, 0, 0, 0)


def test_the_norm_ratio_is_that_of_the_whole_update_not_a_mean_over_ranks() -> None:
    ranks = [
        UpdateReport(update_square_sum=9.0, weight_square_sum=100.0),
        UpdateReport(update_square_sum=16.0, weight_square_sum=2400.0),
    ]
    assert UpdateReport().merge(*ranks).norm_ratio == pytest.approx(math.sqrt(25 / 2500))
    assert ranks[0].norm_ratio == pytest.approx(0.3)


def test_an_update_of_nothing_has_a_norm_ratio_of_zero() -> None:
    assert UpdateReport().norm_ratio == UpdateReport().merge(UpdateReport()).norm_ratio == 0.0
    assert UpdateReport(update_square_sum=0.0, weight_square_sum=4.0).norm_ratio == 0.0


def test_messages_cannot_be_changed_and_survive_pickling() -> None:
    request = SampleRequest(prompt_ids=np.array([5, 14], np.int32), seeds=(811, 402))
    with pytest.raises(FrozenInstanceError):
        request.seeds = ()  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(request))
    assert (copy.prompt_ids.tolist(), copy.seeds) == ([5, 14], (811, 402))
    assert pickle.loads(pickle.dumps(report(1.0, 3))) == report(1.0, 3)
