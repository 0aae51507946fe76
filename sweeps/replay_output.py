"""Where the decisions of a replay go: a table on a terminal, JSON lines anywhere else, a picture."""

import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from actors.lr_policies import LrDecision
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.trace_tables import file_of
from sweeps.replay import Replay
from sweeps.targets import check_targets


def check_files(out: Path | None, plot: Path | None, trace: str, policy: str) -> None:
    """Refuse what cannot be written to, before anything is read.

    Raises:
        ConfigError: as `check_targets`, for which trace and policy are sources; or no suffix of a picture.
    """
    check_targets({"--out": out, "--plot": plot}, [("the trace", file_of(trace)), ("the policy", Path(policy))])
    if plot:
        from sweeps.replay_figure import check_format  # noqa: PLC0415 - matplotlib takes half a second

        check_format(plot)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when all went well, and is removed otherwise."""
    temporary = path.with_name(f".{uuid4().hex}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(str(path), "", MISSING, f"a file that can be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)


def json_lines(decisions: Iterable[LrDecision]) -> Iterator[str]:
    """A line of JSON per decision; the lr in as many digits as make it exact."""
    for decision in decisions:
        events = json.dumps(decision.events) if decision.events else "[]"
        yield f'{{"step": {decision.step}, "lr": {decision.lr!r}, "events": {events}}}\n'


def event_table(replayed: Replay) -> Table:
    """The first row, the last, and those where something happened."""
    trace, decisions = replayed.trace, replayed.decisions
    table = Table("step", *trace.columns, "learning rate", "events", title=trace.source, title_justify="left")
    for row, decision in enumerate(decisions):
        if decision.events or row in (0, len(decisions) - 1):
            values = [float(column[row]) for column in trace.columns.values()]
            signals = ["-" if math.isnan(value) else f"{value:.6g}" for value in values]
            table.add_row(str(decision.step), *signals, f"{decision.lr:.6g}", ", ".join(decision.events))
    return table


def publish(replayed: Replay, out: Path | None, plot: Path | None, console: Console | None) -> None:
    """Write what was asked for, all files or none.

    Args:
        replayed: the decisions.
        out: of the JSON lines; None prints them, or the table of events on a terminal.
        plot: of the picture, in the format that its suffix names.
        console: the terminal; None when standard output is none.
    """
    with ExitStack() as files:
        if out:
            with files.enter_context(replacing(out)).open("w", encoding="utf-8") as file:
                file.writelines(json_lines(replayed.decisions))
        if plot:
            from sweeps.replay_figure import draw  # noqa: PLC0415 - matplotlib takes half a second

            draw(replayed, files.enter_context(replacing(plot)))
    if console is None:
        if not out:
            sys.stdout.writelines(json_lines(replayed.decisions))
        return
    if not out:
        console.print(event_table(replayed))
    for what, path in (("decisions", out), ("picture", plot)):
        if path:
            console.print(f"{what} in {path}", highlight=False, markup=False, soft_wrap=True)
