"""Programs that tests need and pip does not install: Debian's chromium and postgresql."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

REQUIRED = "EVENKEEL_REQUIRE_SYSTEM_TOOLS"  # set where all of them have to be there, as in CI


def system_tool(package: str, places: Iterable[Path]) -> Path:
    """The first of `places` that is there; without any the test is skipped, or fails where `REQUIRED` is 1.

    Args:
        package: Debian's package that has it.
        places: where it may be, the likeliest first.
    """
    found = next((place for place in places if place.exists()), None)
    if found is not None:
        return found
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"needs Debian's package {package}, and {REQUIRED} is set")
    pytest.skip(f"needs Debian's package {package}")
