"""What a run's folder says of the run that it began with."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config_errors import ConfigError
from sweeps.fork.fork import FORK, Fork, read_fork

ARMS = st.sampled_from(["baseline", "trial-012"])


@given(fork=st.builds(Fork, source=ARMS, forked_at=st.integers(1), whole=st.booleans()))
def test_it_is_read_as_it_was_written(fork: Fork, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / FORK).write_text(fork.to_json())
    assert read_fork(folder) == fork


def test_a_run_that_began_at_its_beginning_has_none(tmp_path: Path) -> None:
    assert read_fork(tmp_path) is None
    assert read_fork(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("{", ""),
        ("[]", ""),
        ('{"source": "baseline", "forked_at": 0, "whole": false}', "forked_at: "),
        ('{"source": "baseline", "forked_at": 4}', "whole: "),
        ('{"source": "baseline", "forked_at": 4, "whole": true, "more": 1}', "more: "),
    ],
)
def test_anything_else_is_named(tmp_path: Path, content: str, field: str) -> None:
    (tmp_path / FORK).write_text(content)
    with pytest.raises(ConfigError) as raised:
        read_fork(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / FORK}: {field}expected what a run was forked from (")
    assert "\n" not in str(raised.value)
