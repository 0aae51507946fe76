"""Real runs need a folder with an experiment in it."""

from pathlib import Path

import pytest
from real_run import TINY


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with the smallest experiment that has everything: `tiny.yaml`."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path
