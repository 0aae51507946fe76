"""How long an annealed schedule takes, and where that number comes from."""

import pytest
from pydantic import ValidationError

from actors.lr_policies import CosineConfig, LinearConfig
from actors.misfit import Misfit

AnnealedConfig = type[LinearConfig] | type[CosineConfig]
both = pytest.mark.parametrize("config", [LinearConfig, CosineConfig])


@both
def test_the_length_of_the_experiment_is_the_default(config: AnnealedConfig) -> None:
    own = config(total_steps=40).build(total_steps=None)
    given = config().build(total_steps=40)
    overruled = config(total_steps=40).build(total_steps=9000)
    for step in (0, 13, 39, 40, 41):
        assert own.observe(step, {}) == given.observe(step, {}) == overruled.observe(step, {})


@both
def test_a_length_that_nobody_gives_is_named(config: AnnealedConfig) -> None:
    with pytest.raises(ValueError, match="total_steps is missing"):
        config().build(total_steps=None)


@both
def test_a_warmup_that_leaves_nothing_to_fall_in_is_refused(config: AnnealedConfig) -> None:
    with pytest.raises(ValidationError, match="warmup_steps less than total_steps, which is 10"):
        config(total_steps=10, warmup_steps=10)
    with pytest.raises(Misfit) as raised:
        config(warmup_steps=10).build(total_steps=5)
    misfit = raised.value
    assert (misfit.field, misfit.value, misfit.expected) == ("warmup_steps", 10, "less than total_steps, which is 5")


@both
@pytest.mark.parametrize("field", [{"total_steps": 0}, {"total_steps": 1.0}, {"min_lr_ratio": 1.1}])
def test_values_outside_their_range_are_refused_by_name(config: AnnealedConfig, field: dict[str, float]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(ValidationError, match=rf"{name}\n.*input_value={value}"):
        config(**field)  # type: ignore[arg-type]


@both
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3, 0.7, 1 / 3, 1.0])
def test_the_end_of_the_fall_is_the_floor_itself_and_never_below(config: AnnealedConfig, ratio: float) -> None:
    policy = config(lr=1e-6, total_steps=30, warmup_steps=3, min_lr_ratio=ratio).build(total_steps=None)
    lrs = [policy.observe(step, {}).lr for step in range(50)]
    assert lrs[2] == lrs[3] == 1e-6
    assert min(lrs[3:]) == lrs[30] == lrs[49] == 1e-6 * ratio
