"""Fixtures of the tests that run real FSDP2 ranks."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from learner_ranks import lone_rank

from actors.learner import Learner


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Learner]]:
    """A function that starts a learner alone in its gang; the last one is closed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where ranks on one machine meet
    with lone_rank() as start:
        yield start
