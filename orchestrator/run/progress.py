"""What a run looks like while it goes on: one live line on a terminal, a plain line now and then elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from orchestrator.records import StepRecord

PLAIN_EVERY_S, QUIET_EVERY_S = 10.0, 60.0
COLUMNS = {  # heading: metric, format
    "reward": ("reward/mean", ".3f"),
    "length": ("response/length_mean", ".1f"),
    "mismatch": ("mismatch/log_ppl_abs_diff", ".2e"),
    "grad norm": ("gradient/norm", ".3f"),
    "lr": ("scheduler/lr", ".2e"),
    "tokens/s": ("throughput/tokens_per_s", ",.0f"),
}


class Progress:
    """Shows the steps of one run.

    with Progress(console, "decay seed 0", steps=90) as progress:
        progress.show(record)
    """

    def __init__(self, console: Console, title: str, steps: int, *, quiet: bool = False) -> None:
        """Define the progress.

        Args:
            console: the screen, or a file.
            title: names the run in every line.
            steps: that the run shall have.
            quiet: plain lines on a terminal, too, and fewer of them, as several runs at once on one console need.
        """
        self._console = console
        self._title = title
        self._steps = steps
        is_live = console.is_terminal and not quiet
        self._live = Live(console=console, refresh_per_second=4, transient=True) if is_live else None
        self._every_s = QUIET_EVERY_S if quiet else PLAIN_EVERY_S
        self._started = time.monotonic()
        self._printed = float("-inf")
        self._before = 0  # steps that were done when the first one was shown
        self._done = 0
        self._told = 0  # how many steps were done at the last plain line
        self._last: StepRecord | None = None

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(f"{self._title}: {text}", highlight=False, markup=False, soft_wrap=True)

    def show(self, record: StepRecord) -> None:
        """Show a step that has just ended, and whatever happened in it."""
        if self._last is None:
            self._started = time.monotonic() - record.metrics["time/step"]
            self._before = record.step
        self._last = record
        self._done = record.step + 1
        if record.events:
            self.say(f"step {record.step}: {', '.join(record.events)} -> lr {record.metrics['scheduler/lr']:.3g}")
        if self._live is not None:
            self._live.update(self._table(record))
        elif time.monotonic() - self._printed >= self._every_s or self._done == self._steps:
            self._printed = time.monotonic()
            self._told = self._done
            self.say(self._plain(record))

    def _cells(self, record: StepRecord) -> dict[str, str]:
        cells = {"step": f"{record.step + 1}/{self._steps}"}
        for heading, (key, form) in COLUMNS.items():
            value = record.metrics.get(key)
            cells[heading] = "-" if value is None else format(value, form)
        in_this_process = max(1, self._done - self._before)  # a run may go on, or go back to a checkpoint
        left = (time.monotonic() - self._started) / in_this_process * max(0, self._steps - self._done)
        cells["left"] = f"{int(left // 60)}:{int(left % 60):02d}"
        return cells

    def _table(self, record: StepRecord) -> Table:
        cells = self._cells(record)
        table = Table(*cells, title=self._title, title_justify="left")
        table.add_row(*cells.values())
        return table

    def _plain(self, record: StepRecord) -> str:
        return "  ".join(f"{heading} {cell}" for heading, cell in self._cells(record).items())

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, at)
        if self._last is not None and self._done != self._told:
            self.say(self._plain(self._last))
