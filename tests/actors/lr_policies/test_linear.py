"""The linear schedule."""

import pytest

from actors.lr_policies import LinearConfig


def test_the_lr_falls_by_the_same_amount_every_step_after_the_warmup() -> None:
    policy = LinearConfig(lr=1e-3, warmup_steps=5, min_lr_ratio=0.2).build(total_steps=25)
    for step in range(40):
        done = min(1.0, (step - 5) / 20)
        expected = 1e-3 * (step + 1) / 5 if step < 5 else 1e-3 * (1 - 0.8 * done)
        assert policy.observe(step, {}).lr == pytest.approx(expected, rel=1e-12)


def test_it_ends_at_zero_unless_told_otherwise() -> None:
    policy = LinearConfig(lr=1e-3).build(total_steps=10)
    assert policy.observe(10, {}).lr == policy.observe(5000, {}).lr == 0.0
