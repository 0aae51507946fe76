"""The simulation block: what a file may say, and how its ramps run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from actors.simulated.config import Ramp, SimulationConfig

VALUES = st.floats(0, 1e6)


@given(first=VALUES, last=VALUES, middle=st.floats(0, 1e4), width=st.floats(0.1, 1e4), step=st.integers(0, 10_000))
def test_a_ramp_stays_between_its_ends_and_is_half_way_in_its_middle(
    first: float, last: float, middle: float, width: float, step: int
) -> None:
    ramp = Ramp(first=first, last=last, middle=middle, width=width)
    low, high = sorted((first, last))
    slack = 1e-9 * high
    assert low - slack <= ramp.at(step) <= high + slack
    assert ramp.model_copy(update={"middle": float(step)}).at(step) == pytest.approx((first + last) / 2)


@pytest.mark.parametrize(
    "block",
    [
        {"workers_per_process": 0},
        {"jitter": 1.5},
        {"seconds": {"generate": -1.0}},
        {"seconds": {"evaluate": 1.0}},
        {"response_tokens": {"first": 1.0, "last": 2.0, "middle": 3.0, "width": 0.0}},
    ],
)
def test_what_no_stand_in_can_do_is_refused(block: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SimulationConfig.model_validate(block)
