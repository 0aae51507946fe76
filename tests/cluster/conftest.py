"""A Ray for the tests that start workers, one for each module."""

from collections.abc import Iterator

import pytest

from cluster.config import ClusterConfig
from cluster.session import session


@pytest.fixture(scope="module")
def on_ray() -> Iterator[None]:
    with session(ClusterConfig()):
        yield
