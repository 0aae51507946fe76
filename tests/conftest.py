"""What holds for all tests."""

import os
import signal

from hypothesis import settings

import cluster  # noqa: F401 - before any test imports ray, which reads the environment set here only once

# A shared or busy machine is slow now and then; that is no failure.
settings.register_profile("evenkeel", deadline=None)
settings.load_profile("evenkeel")

# Whoever runs the tests in the background of a script has them ignore SIGINT; the tests of interrupts send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Where tests run in several processes, each is told how wide a screen it has; tables are as wide as tests say.
os.environ.pop("COLUMNS", None)
