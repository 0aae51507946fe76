"""The step schedule."""

import pytest
from pydantic import ValidationError

from actors.lr_policies import StepConfig


def test_the_lr_is_multiplied_by_the_factor_once_per_period() -> None:
    policy = StepConfig(lr=1e-3, period=4, factor=0.3, warmup_steps=2).build(total_steps=None)
    for step in range(30):
        expected = 1e-3 * min(1.0, (step + 1) / 2) * 0.3 ** (step // 4)
        decision = policy.observe(step, {})
        assert decision.lr == pytest.approx(expected, rel=1e-12)
        assert decision.events == ()


def test_the_lr_stops_at_its_floor_however_late_the_step() -> None:
    policy = StepConfig(lr=1e-3, period=1, factor=0.5, min_lr_ratio=0.2).build(total_steps=None)
    assert [policy.observe(step, {}).lr for step in (2, 3, 10**6)] == pytest.approx([2.5e-4, 2e-4, 2e-4], rel=1e-12)


@pytest.mark.parametrize("period", [0, -3, 1.5, True, None])
def test_a_period_that_is_no_number_of_steps_is_refused(period: object) -> None:
    with pytest.raises(ValidationError, match=r"period"):
        StepConfig(period=period)  # type: ignore[arg-type]
