"""The commands about runs that are there: runs list, runs show, runs delete."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer

from orchestrator.checkpoints.manifest import CheckpointDamaged, Manifest
from orchestrator.cli import PLAIN, RUNS, RunsOption, console
from orchestrator.config_errors import MISSING, ConfigError
from sweeps.run_deletion import check_not_in_use, delete_checkpoints, delete_leftover, delete_run, leftovers
from sweeps.run_summary import RunSummary, size_of
from sweeps.runs import choose, find_runs
from sweeps.runs_output import as_json as json_of
from sweeps.runs_output import show_deletion, show_list, show_run

AT_ONCE = 16  # runs that are looked at side by side: their checkpoints may be far away

runs_app = typer.Typer()


@runs_app.callback(invoke_without_command=True)
def help_alone(context: typer.Context) -> None:
    """Show or delete runs: how each stands and what it keeps."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@runs_app.command("list", epilog="Example: evenkeel runs list --json")
def list_runs(
    runs: RunsOption = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="a list of JSON objects instead of a table")] = False,
) -> None:
    """All runs: state, steps, checkpoints, size, time. One that was killed has "died"."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = list(threads.map(lambda run: RunSummary.read(*run), find_runs(runs).items()))
    if as_json:
        print(json.dumps([json_of(run) for run in found]))
        return
    show_list(found, runs, console)


@runs_app.command(epilog="Example: evenkeel runs show demo/decay/seed-0 --verify")
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="NAME/ARM/seed-N, or the path of its folder")],
    verify: Annotated[bool, typer.Option("--verify", help="read all checkpoints and compare the checksums")] = False,
    runs: RunsOption = RUNS,
) -> None:
    """One run: how it stands or ended, config, verdict, checkpoints, files."""
    found = find_runs(runs)
    key = choose(run, runs, found)
    summary = RunSummary.read(key, found[key])
    show_run(summary, console, _damage(summary) if verify else None)


@runs_app.command(epilog="Example: evenkeel runs delete demo/decay/seed-0.old-1 demo/decay/seed-0.old-2")
def delete(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="NAME/ARM/seed-N, or the path of its folder")
    ] = None,
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="only their checkpoints")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    runs: RunsOption = RUNS,
) -> None:
    """Delete runs, or only their checkpoints, after a question; what they have in MLflow stays."""
    found = find_runs(runs)
    keys = dict.fromkeys(choose(name, runs, found) for name in names or [])
    left = leftovers(runs)
    if not keys and not left:
        raise ConfigError("RUN", "", MISSING, "a run to delete; `evenkeel runs list` shows them")
    check_not_in_use(found[key] for key in keys)
    chosen = [RunSummary.read(key, found[key]) for key in keys]
    show_deletion(chosen, sum(map(size_of, left)), console, checkpoints=checkpoints)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("--yes", "", MISSING, "this option where nobody can be asked: there is no terminal")
        if not typer.confirm("delete?"):
            console.print("nothing was deleted", **PLAIN)
            raise typer.Exit(1)
    for run in chosen:
        (delete_checkpoints if checkpoints else delete_run)(run.path)
        console.print(f"deleted {run.place if checkpoints else run.path}", **PLAIN)
    for path in left:
        delete_leftover(path)


def _damage(run: RunSummary) -> dict[str, str | None]:
    """What is wrong with each complete checkpoint; None where nothing is."""
    found: dict[str, str | None] = {}
    for checkpoint in run.complete:
        try:
            Manifest.read_verified(run.place / checkpoint.name)
            found[checkpoint.name] = None
        except CheckpointDamaged as error:
            found[checkpoint.name] = str(error)
    return found
