"""How runs look: a table of all, a page of one, the list of what is to be deleted, or JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.cli import PLAIN
from orchestrator.config_errors import ConfigError
from orchestrator.disk import size_text
from orchestrator.run.folder import CHECKPOINTS, CONFIG, VERDICT
from orchestrator.yaml_files import read_mapping
from sweeps.run_summary import RunSummary

WHEN = "ended, or began"  # in UTC
LESS_URGENT = (WHEN, "their size")  # left out of a table that is too wide, in this order
STYLES = dict(running="green", finished="", stopped="", collapsed="yellow", unknown="dim")  # the others are trouble


def show_list(runs: Sequence[RunSummary], root: Path, console: Console) -> None:
    """A row per run, in as many columns as there is room for; what is wrong with their files; the sum."""
    if not runs:
        console.print(f"no runs in {root}", **PLAIN)
        return
    unlimited = console.options.update(max_width=10_000)
    for left_out in range(len(LESS_URGENT) + 1):
        table = _list_table(runs, LESS_URGENT[:left_out])
        if console.measure(table, options=unlimited).maximum <= console.width:
            break
    console.print(table)
    for run in runs:
        for problem in run.problems:
            console.print(f"{run.key}: {problem}", style="red", **PLAIN)
    total, kept = sum(run.num_bytes for run in runs), sum(run.checkpoint_bytes for run in runs)
    number = f"{len(runs):,} run" + ("s" if len(runs) > 1 else "")
    console.print(f"{number}, {size_text(total)}, of which checkpoints {size_text(kept)}", **PLAIN)


def _list_table(runs: Sequence[RunSummary], left_out: Sequence[str]) -> Table:
    table = Table()
    table.add_column("run", overflow="fold")
    cells: dict[str, list[str | Text]] = {
        "state": [Text(run.state, STYLES.get(run.state, "red")) for run in runs],
        "steps": [_steps(run) for run in runs],
        "checkpoints": [_kept(run) for run in runs],
        "their size": [size_text(run.checkpoint_bytes) if run.checkpoint_bytes else "-" for run in runs],
        "size": [size_text(run.num_bytes) for run in runs],
        WHEN: [_when(run) for run in runs],
    }
    shown = {heading: column for heading, column in cells.items() if heading not in left_out}
    for heading in shown:
        table.add_column(heading, justify="left" if heading in ("state", WHEN) else "right")
    for run, *row in zip(runs, *shown.values(), strict=True):
        table.add_row(Text(run.key), *row)
    return table


def as_json(run: RunSummary) -> dict[str, Any]:
    """A row of the list as what `json.dumps` takes."""
    status = run.status
    return {
        "run": run.key,
        "folder": str(run.path),
        "state": run.state,
        "steps_done": run.steps_done,
        "steps": run.steps,
        "checkpoints": len(run.complete),
        "last_checkpoint": run.complete[-1].step if run.complete else None,
        "checkpoint_bytes": run.checkpoint_bytes,
        "bytes": run.num_bytes,
        "started": status.started if status else None,
        "ended": status.ended if status else None,
        "resumes": status.resumes if status else None,
        "detail": status.detail if status else None,
        "mlflow_run_id": status.mlflow_run_id if status else None,
        "problems": list(run.problems),
    }


def show_run(run: RunSummary, console: Console, damage: Mapping[str, str | None] | None = None) -> None:
    """All that is known of one run.

    Args:
        run: which.
        console: where to.
        damage: by name what is wrong with each complete checkpoint, None where nothing is; None: not looked at.
    """
    facts = Table(show_header=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(run).items():
        facts.add_row(name, Text(value))
    for problem in run.problems:
        facts.add_row(Text("problem", "red"), Text(problem))
    console.print(facts)
    if run.checkpoints:
        table = Table("checkpoint", "state", "size")
        for checkpoint in run.checkpoints:
            state: str = checkpoint.state
            if damage is not None and checkpoint.name in damage:
                state = damage[checkpoint.name] or "complete, every byte as written"
            table.add_row(f"step {checkpoint.step}", Text(state), size_text(checkpoint.num_bytes))
        console.print(table)
    files = Table("file or folder", "size")
    for name, size in sorted(run.files.items()):
        files.add_row(Text(name), size_text(size))
    console.print(files)


def show_deletion(runs: Sequence[RunSummary], left: int, console: Console, *, checkpoints: bool) -> None:
    """What is about to be deleted, and how much that is; `left` bytes of interrupted deletions go with it."""
    table = Table("to be deleted", "state", "steps", "checkpoints", "size")
    for run in runs:
        size = run.checkpoint_bytes if checkpoints else run.num_bytes
        what = f"{run.key}: checkpoints" if checkpoints else run.key
        table.add_row(Text(what), run.state, _steps(run), str(len(run.checkpoints)), size_text(size))
    if runs:
        console.print(table)
    if left:
        console.print(f"and {size_text(left)} that an interrupted deletion has left", **PLAIN)


def _facts(run: RunSummary) -> dict[str, str]:
    facts = {"run": run.key, "folder": str(run.path), "state": _told(run)}
    if run.status is not None:
        facts["started"] = run.status.started
        facts["ended"] = run.status.ended or "-"
        facts["resumed"] = {0: "never", 1: "once"}.get(run.status.resumes, f"{run.status.resumes} times")
        facts["process"] = f"{run.status.pid} on host {run.status.host}"
        facts["MLflow run"] = run.status.mlflow_run_id or "-"
    facts["steps"] = _steps(run)
    facts["scheduler"] = _scheduler(run.path / CONFIG)
    facts["verdict"] = _verdict(run.path / VERDICT)
    if run.place != run.path / CHECKPOINTS:
        facts["checkpoints in"] = str(run.place)
    facts["size"] = size_text(run.num_bytes)
    return facts


def _told(run: RunSummary) -> str:
    if run.state == "died":
        newest = f"that of step {run.complete[-1].step}" if run.complete else "none"
        return f"died: its process is gone and has written no end; newest complete checkpoint: {newest}"
    return run.state + (f": {run.status.detail}" if run.status and run.status.detail else "")


def _scheduler(path: Path) -> str:
    try:
        block = read_mapping(path).get("scheduler")
    except ConfigError as error:
        return str(error)
    return str(block["kind"]) if isinstance(block, dict) and "kind" in block else "-"


def _verdict(path: Path) -> str:
    try:
        verdict = from_json(path.read_bytes())
        if not verdict["collapsed"]:
            return "no collapse"
        return f"collapsed at step {verdict['step']}: {verdict['detail']}"
    except FileNotFoundError:
        return "-"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{path.name} cannot be used"


def _steps(run: RunSummary) -> str:
    done, steps = ("?" if number is None else str(number) for number in (run.steps_done, run.steps))
    return f"{done} of {steps}"


def _kept(run: RunSummary) -> str:
    """`3, to 59`: how many are complete, and the step of the newest."""
    return f"{len(run.complete)}, to {run.complete[-1].step}" if run.complete else "0"


def _when(run: RunSummary) -> str:
    time = (run.status.ended or run.status.started) if run.status else ""
    return time[:16].replace("T", " ") or "-"  # to the minute
