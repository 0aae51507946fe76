"""A Ray for the tests that start workers, one for all of them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest
import ray

from cluster.config import ClusterConfig
from cluster.placement import Slot, reserved
from cluster.plan import Bundle, Plan, Seat
from cluster.session import session

Places = Callable[[str, int], AbstractContextManager[list[Slot]]]


@pytest.fixture(scope="module")
def on_ray(request: pytest.FixtureRequest) -> None:
    """Ray, started by the first module that needs it and gone after the last one in this folder."""
    if not ray.is_initialized():
        standing = ExitStack()
        standing.enter_context(session(ClusterConfig()))
        request.node.parent.addfinalizer(standing.close)


@pytest.fixture(scope="module")
def places(on_ray: None) -> Places:
    """Reserves places for so many workers of a role, each in a bundle of its own."""

    @contextmanager
    def reserve(role: str, number: int) -> Iterator[list[Slot]]:
        bundle = Bundle(seats=(Seat(role=role, cpus=0.1, gpus=0.0),))
        with reserved(Plan(bundles=(bundle,) * number, name="tests"), timeout_s=30) as slots:
            yield slots[role]

    return reserve
