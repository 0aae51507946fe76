"""The constant policy."""

import pytest

from actors.lr_policies import ConstantConfig


def test_the_lr_is_the_same_at_every_step() -> None:
    policy = ConstantConfig(lr=3e-6).build(total_steps=None)
    assert [policy.observe(step, {}).lr for step in (0, 1, 999, 10**9)] == [3e-6] * 4


def test_a_warmup_is_a_rise_by_equal_parts() -> None:
    policy = ConstantConfig(lr=4e-6, warmup_steps=4).build(total_steps=10)
    lrs = [policy.observe(step, {}).lr for step in range(6)]
    assert lrs == pytest.approx([1e-6, 2e-6, 3e-6, 4e-6, 4e-6, 4e-6], rel=1e-12)


def test_it_reads_no_metric_and_reports_no_event() -> None:
    policy = ConstantConfig().build(total_steps=None)
    assert policy.signals == ()
    assert policy.observe(0, {"response/length_mean": float("nan")}).events == ()
