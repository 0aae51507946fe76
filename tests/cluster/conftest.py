"""A Ray for the tests that start workers, one for all of them."""

from contextlib import ExitStack

import pytest
import ray

from cluster.config import ClusterConfig
from cluster.session import session


@pytest.fixture(scope="module")
def on_ray(request: pytest.FixtureRequest) -> None:
    """Ray, started by the first module that needs it and gone after the last one in this folder."""
    if not ray.is_initialized():
        standing = ExitStack()
        standing.enter_context(session(ClusterConfig()))
        request.node.parent.addfinalizer(standing.close)
