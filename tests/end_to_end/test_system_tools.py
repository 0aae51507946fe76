"""A missing program skips the tests that need it, and fails them where it has to be there."""

from pathlib import Path

import pytest
from system_tools import REQUIRED, system_tool

GONE = Path("/nowhere/chromium")


def test_the_first_place_that_exists_is_taken(tmp_path: Path) -> None:
    assert system_tool("chromium", [GONE, tmp_path, tmp_path.parent]) == tmp_path


def test_without_it_a_test_is_skipped_or_fails_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs Debian's package chromium"):
        system_tool("chromium", [GONE])
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match="needs Debian's package chromium, and"):
        system_tool("chromium", [GONE])
