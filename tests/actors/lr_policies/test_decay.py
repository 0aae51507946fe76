"""Decays, their events and the exact comparison with the floor."""

import math
import time

import pytest
from pydantic import ValidationError

from actors.lr_policies import StepConfig
from actors.lr_policies.decay import Decay


def config(factor: float, min_lr_ratio: float) -> StepConfig:
    return StepConfig(period=1, factor=factor, min_lr_ratio=min_lr_ratio)


@pytest.mark.parametrize(
    ("factor", "min_lr_ratio", "first"),
    [
        (0.1, 0.001, 3),  # 0.1**3 is above 0.001 in floats
        (0.1, 1e-9, 9),
        (0.1, 1e-300, 300),
        (0.2, 0.008, 3),  # and 0.2**3 above 0.008
        (0.7, 0.49, 2),  # 0.7**2 below 0.49
        (0.7, 0.48999999999999994, 3),
        (0.9, 0.81, 2),
        (0.5, 0.1, 4),
        (0.5, 0.25, 2),
        (0.3, 1.0, 1),
        (0.999, 0.5, 693),
        (0.5, 5e-324, 1074),
    ],
)
def test_the_floor_is_reached_where_the_decimals_say_so(factor: float, min_lr_ratio: float, first: int) -> None:
    reaches = config(factor, min_lr_ratio).reaches_floor
    assert [reaches(n) for n in range(max(1, first - 2), first + 3)] == [
        n >= first for n in range(max(1, first - 2), first + 3)
    ]


def test_a_floor_of_zero_is_never_reached_even_when_the_float_underflows() -> None:
    bottomless = config(0.5, 0.0)
    assert not any(bottomless.reaches_floor(n) for n in (1, 1074, 1075, 1076, 10**6))
    assert bottomless.lr_after(0, num_decays=10**6) == 0.0


def test_a_million_slow_decays_are_decided_fast() -> None:
    decay = Decay(config(0.999999, 0.5))
    started = time.process_time()
    floors = [n for n in range(1, 10**6) if "floor" in decay.move_to(n)]
    assert time.process_time() - started < 10
    assert floors == [math.ceil(math.log(0.5) / math.log(0.999999))]


def test_a_jump_over_many_decays_is_one_event() -> None:
    decay = Decay(config(0.5, 0.001))
    assert [decay.move_to(n) for n in (0, 5, 5, 6)] == [(), ("decay",), (), ("decay",)]


def test_the_floor_comes_once_with_its_decay_and_nothing_after_it() -> None:
    decay = Decay(config(0.5, 0.1))
    assert [decay.move_to(n) for n in (3, 4, 5, 9)] == [("decay",), ("decay", "floor"), (), ()]
    assert decay.on_floor


@pytest.mark.parametrize("field", [{"factor": 0.0}, {"factor": 1.0}, {"min_lr_ratio": -0.1}, {"min_lr_ratio": 1.5}])
def test_values_outside_their_range_are_refused_by_name(field: dict[str, float]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(ValidationError, match=rf"{name}\n.*input_value={value}"):
        StepConfig(period=1, **field)  # type: ignore[arg-type]
