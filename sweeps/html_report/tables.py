"""The tables of the page, as HTML with everything in them escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from rich.table import Table

from sweeps.study.record import SeedRecord, StudyRecord, TrialRecord

LONGEST = 30  # characters of a cell that is not wrapped
Cell = str | float | int | bool | None


def rich_table(table: Table) -> str:
    """A table of the terminal, cell for cell; its title becomes the caption."""
    head = [str(column.header) for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    caption = f"<caption>{escape(str(table.title))}</caption>" if table.title else ""
    body = "".join(
        f'<tr><th scope="row">{_text(first)}</th>'
        + "".join(f"<td{_wrapped(cell)}>{_text(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return _scrolling(f"<table>{caption}{_head(head)}<tbody>{body}</tbody></table>")


def trials_table(study: StudyRecord) -> str:
    """A row per trial, sortable by every column; the best one is marked."""
    head, rows = trial_rows(study)
    best = study.best
    body = "".join(
        f"<tr{' class=best' if best and trial.number == best.number else ''}>"
        + "".join(_cell(cell) for cell in row)
        + "</tr>"
        for trial, row in zip(study.trials, rows, strict=True)
    )
    table = f'<table class="sortable">{_head(map(short, head))}<tbody>{body}</tbody></table>'
    return _scrolling(table, "table trials")


def trial_rows(study: StudyRecord) -> tuple[list[str], list[list[Cell]]]:
    """Headings, and the figures of every trial in full precision; None where one has no such figure."""
    limits = list(dict.fromkeys(name for trial in study.trials for name in trial.constraints))
    head = ["trial", "state", "value", *([] if not limits else ["feasible", *limits]), *study.space]
    head += ["steps", "executed", "shared with", "reason"]
    return head, [_trial_row(trial, limits, list(study.space)) for trial in study.trials]


def tiles(study: StudyRecord) -> str:
    """What the study cost, as figures with their names."""
    cost = study.accounting
    share = f" ({cost.saved / cost.naive:.0%})" if cost.naive else ""
    told = {
        "steps executed": f"{cost.executed:,}",
        "steps saved by shared prefixes": f"{cost.saved:,}{share}",
        "steps of the trials' runs": f"{cost.naive:,}",
        "trials that were the baseline": f"{cost.free:,}",
        "trials equal to an earlier one": f"{cost.merged:,}",
    }
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{figure}</dd></div>" for name, figure in told.items()) + "</dl>"


def short(path: str) -> str:
    """A parameter without the block that nearly all of them stand in: `ratio` of `scheduler.ratio`."""
    return path.removeprefix("scheduler.")


def shown(value: Cell) -> str:
    """A value in a few characters."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _trial_row(trial: TrialRecord, limits: Sequence[str], paths: Sequence[str]) -> list[Cell]:
    seeds = list(trial.seeds.values())
    constraints: list[Cell] = [trial.constraints.get(name) for name in limits]
    return [
        trial.number,
        trial.state,
        trial.value,
        *([trial.feasible if trial.constraints else None, *constraints] if limits else []),
        *(trial.params.get(path) for path in paths),
        sum(seed.steps for seed in seeds),
        sum(seed.executed for seed in seeds),
        ", ".join(dict.fromkeys(_source(seed) for seed in seeds if seed.source)) or None,
        trial.reason,
    ]


def _source(seed: SeedRecord) -> str:
    return f"{seed.source} to step {seed.forked_at}" if seed.executed else f"{seed.source} throughout"


def _sort_key(cell: Cell) -> str:
    return "" if cell is None else str(int(cell)) if isinstance(cell, bool) else str(cell)


def _head(names: Iterable[str]) -> str:
    return "<thead><tr>" + "".join(f'<th scope="col">{_text(name)}</th>' for name in names) + "</tr></thead>"


def _text(cell: Any) -> str:
    return escape(str(cell)).replace("\n", "<br>")


def _cell(cell: Cell) -> str:
    text = shown(cell)
    return f'<td{_wrapped(text)} data-sort="{escape(_sort_key(cell))}">{_text(text)}</td>'


def _wrapped(cell: Any) -> str:
    return ' class="long"' if any(len(line) > LONGEST for line in str(cell).splitlines()) else ""


def _scrolling(table: str, classes: str = "table") -> str:
    return f'<div class="{classes}" tabindex="0">{table}</div>'
