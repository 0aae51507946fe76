"""Where the seconds of a step went."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class PhaseClock:
    """Adds up wall-clock seconds by phase; a phase may be entered several times in a step."""

    def __init__(self, entered: Callable[[str], None] = lambda name: None) -> None:
        """Start the clock.

        Args:
            entered: is told of each phase that begins.
        """
        self._entered = entered
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the with-block towards `name`."""
        started = time.perf_counter()
        self._entered(name)
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started

    def add(self, other: "PhaseClock") -> None:
        """Count another clock's phases as well: those of work that was done for this step before it began."""
        for name, seconds in other._seconds.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def metrics(self) -> dict[str, float]:
        """`time/<phase>` for every phase entered, and `time/step` since this clock was made; seconds."""
        measured = {f"time/{name}": seconds for name, seconds in self._seconds.items()}
        return {**measured, "time/step": time.perf_counter() - self._started}
