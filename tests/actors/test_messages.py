"""What crosses a process boundary: frozen, and merged by adding up."""

import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from actors.messages import GradientReport, SampleRequest
from actors.statistics import MismatchSums


def report(scale: float, tokens: int) -> GradientReport:
    rollout = -np.linspace(0.5, 1.5, tokens)
    return GradientReport(
        mismatch=MismatchSums.from_logprobs(rollout - 0.1 * scale, rollout, [tokens]),
        entropy_sum=scale,
        loss=-scale,
        grad_square_sum=2 * scale,
        nonfinite=tokens,
    )


def test_reports_of_all_ranks_add_up() -> None:
    one, other = report(1.0, 3), report(0.5, 2)
    assert GradientReport.merge([one, other]) == GradientReport(
        mismatch=one.mismatch.merge(other.mismatch), entropy_sum=1.5, loss=-1.5, grad_square_sum=3.0, nonfinite=5
    )


def test_the_report_of_a_single_rank_is_the_merged_one() -> None:
    assert GradientReport.merge([report(1.0, 3)]) == report(1.0, 3)


def test_no_reports_are_a_report_of_nothing() -> None:
    merged = GradientReport.merge([])
    assert merged.mismatch.metrics() == {}
    assert (merged.entropy_sum, merged.loss, merged.grad_square_sum, merged.nonfinite) == (0, 0, 0, 0)


def test_messages_cannot_be_changed_and_survive_pickling() -> None:
    request = SampleRequest(prompt_ids=np.array([5, 14], np.int32), seeds=(811, 402))
    with pytest.raises(FrozenInstanceError):
        request.seeds = ()  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(request))
    assert (copy.prompt_ids.tolist(), copy.seeds) == ([5, 14], (811, 402))
    assert pickle.loads(pickle.dumps(report(1.0, 3))) == report(1.0, 3)
