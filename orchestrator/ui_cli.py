"""The command that shows runs in MLflow's own web interface."""

from typing import Annotated

import typer

from orchestrator.cli import PLAIN, RUNS, RunsOption, console
from orchestrator.tracking.ui import find_store, show

ui_app = typer.Typer()
PORT = 5000  # MLflow's own default


@ui_app.command(epilog="Example: evenkeel ui --runs runs --port 5001")
def ui(
    runs: RunsOption = RUNS,
    tracking_uri: Annotated[
        str | None, typer.Option(metavar="URI", help="another database; default: mlflow.db in the folder of the runs")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="at 127.0.0.1")] = PORT,
) -> None:
    """MLflow's web interface on the recorded runs, for this machine's browsers, until Ctrl-C."""
    uri, artifacts = find_store(tracking_uri, runs)
    show(uri, artifacts, port, tell=lambda text: console.print(text, **PLAIN))
