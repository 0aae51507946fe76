"""The whole `evenkeel` command: the orchestrator's commands and those that concern several runs."""

import sys
from pathlib import Path
from typing import NoReturn

import typer

from orchestrator.cli import (
    RUNS,
    FileArgument,
    RunsOption,
    SetOption,
    app,
    console,
    faults_from_environment,
    tracking,
)
from orchestrator.config import ExperimentFile
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.failures import known_failures
from orchestrator.model_files import find_model

DEMO = Path(__file__).parents[1] / "examples" / "demo.yaml"
USER_MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130


@app.command(epilog="Example: evenkeel compare examples/demo.yaml --set steps=20")
def compare(file: FileArgument, overrides: SetOption = None, runs: RunsOption = RUNS) -> None:
    """Run all arms with all seeds, under one MLflow parent; then a table and a figure."""
    experiment = ExperimentFile.read(file, overrides or [])
    arms = {arm: experiment.resolve(arm) for arm in experiment.arms()}
    if not arms:
        raise ConfigError(file, "arms", MISSING, "at least one arm to compare; this file has none")
    models = {arm: find_model(config, file) for arm, config in arms.items()}
    from cluster.session import session
    from sweeps.compare import Comparison

    first = next(iter(arms.values()))
    faults = faults_from_environment()
    with tracking(first, runs) as tracker, session(first.cluster) as ray_session:
        Comparison(arms, models, faults, runs, console).run(tracker, ray_session)


@app.command(epilog="Example: evenkeel demo")
def demo(overrides: SetOption = None, runs: RunsOption = RUNS) -> None:
    """Train the embedded model in two arms, constant and decaying learning rate: no network, no GPU."""
    compare(str(DEMO), overrides, runs)


def main() -> None:
    """Run the command line and turn what is known to go wrong into one line and an exit code."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], standalone_mode=False)
    except typer.TyperException as error:
        _fail(error.format_message(), error.exit_code)
    except ConfigError as error:
        _fail(str(error), USER_MISTAKE)
    except known_failures() as error:
        _fail(str(error), FAILURE)
    if code == INTERRUPTED:
        _fail("interrupted; what was recorded is kept", INTERRUPTED)
    sys.exit(code)


def _fail(message: str, code: int) -> NoReturn:
    print(f"evenkeel: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
