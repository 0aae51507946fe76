"""The cosine schedule."""

import math

import pytest

from actors.lr_policies import CosineConfig


def test_the_lr_follows_half_a_cosine_after_the_warmup() -> None:
    policy = CosineConfig(lr=1e-3, warmup_steps=5, min_lr_ratio=0.2).build(total_steps=25)
    for step in range(40):
        angle = math.pi * min(1.0, (step - 5) / 20)
        expected = 1e-3 * (step + 1) / 5 if step < 5 else 1e-3 * (0.2 + 0.4 * (1 + math.cos(angle)))
        assert policy.observe(step, {}).lr == pytest.approx(expected, rel=1e-12)


def test_half_way_is_half_way_between_the_lr_and_its_floor() -> None:
    policy = CosineConfig(lr=1e-3, min_lr_ratio=0.5).build(total_steps=100)
    assert policy.observe(50, {}).lr == pytest.approx(0.75e-3, rel=1e-12)
