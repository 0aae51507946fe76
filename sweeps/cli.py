"""The whole `evenkeel` command: the orchestrator's commands and those that concern several runs."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from orchestrator.cli import (
    RUNS,
    FileArgument,
    ResumeOption,
    RunsOption,
    SetOption,
    app,
    console,
    faults_from_environment,
    tracking,
)
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.experiment_file import ExperimentFile
from orchestrator.failures import known_failures
from orchestrator.model_files import find_model
from orchestrator.run.resume import check_resumable
from orchestrator.ui_cli import ui_app
from sweeps.bench_cli import bench_app
from sweeps.runs_cli import runs_app
from sweeps.submit_cli import submit
from sweeps.sweep_cli import sweep

app.add_typer(runs_app, name="runs")
app.add_typer(bench_app, name="bench")
app.command(epilog="Example: evenkeel sweep examples/sweep.yaml --set trials=4")(sweep)
app.command(
    epilog="Example: evenkeel submit compare examples/demo.yaml --address http://head:8265 --runs /shared/runs",
    context_settings={"ignore_unknown_options": True},
)(submit)
app.add_typer(ui_app)

DEMO = Path(__file__).parents[1] / "examples" / "demo.yaml"
USER_MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130


@app.command(epilog="Example: evenkeel compare examples/demo.yaml --set steps=20")
def compare(
    file: FileArgument, overrides: SetOption = None, runs: RunsOption = RUNS, resume: ResumeOption = False
) -> None:
    """Run all arms with all seeds, under one MLflow parent; then a table and a figure."""
    experiment = ExperimentFile.read(file, overrides or [])
    arms = {arm: experiment.resolve(arm) for arm in experiment.arms()}
    if not arms:
        raise ConfigError(file, "arms", MISSING, "at least one arm to compare; this file has none")
    models = {arm: find_model(config, file) for arm, config in arms.items()}
    from cluster.session import check_cluster, session
    from orchestrator.checkpoints.storage_check import check_storage
    from orchestrator.crew.plans import plan_of

    check_storage([config.checkpoint for config in arms.values()], file)
    if not resume:  # else the runs may be over
        check_cluster(arms[next(iter(arms))].cluster, map(plan_of, arms.values()))
    from orchestrator.experiment import check_problems
    from orchestrator.run_spec import RunSpec
    from orchestrator.task_problems import TaskFiles
    from sweeps.compare import Comparison

    faults = faults_from_environment()
    specs = [
        RunSpec(
            config=config,
            model=models[arm],
            task=TaskFiles.open(config, file),
            arm=arm,
            seed=config.seeds[0],
            folder=runs,
            resume=resume,
            faults=faults,
        )
        for arm, config in arms.items()
    ]
    comparison = Comparison(specs, runs, console)
    for spec in comparison.specs() if resume else []:
        check_resumable(spec.folder, spec.config, spec.seed, file)
    for spec in specs:
        check_problems(spec)
    with tracking(specs[0].config, runs) as tracker, session(specs[0].config.cluster) as ray_session:
        comparison.run(tracker, ray_session)


@app.command(epilog="Example: evenkeel demo")
def demo(overrides: SetOption = None, runs: RunsOption = RUNS, resume: ResumeOption = False) -> None:
    """Train the embedded model in two arms, constant and decaying learning rate: no network, no GPU."""
    compare(str(DEMO), overrides, runs, resume)


@app.command(epilog="Example: evenkeel report runs/demo --detectors detectors.yaml --csv demo.csv")
def report(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="runs/<name>, or the name alone")],
    detectors: Annotated[
        Path | None, typer.Option(metavar="D.yaml", help="detectors by name, each a scheduler block; and 'stability'")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="F", help="F.html or F.png; default: report.html, comparison.png in FOLDER")
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="F.csv", help="also write a line of figures per run")] = None,
    runs: RunsOption = RUNS,
) -> None:
    """Tables and figures of recorded runs, as a page; with detectors, how early each would have warned."""
    from sweeps.detectors import Detectors, check_signals
    from sweeps.report import Report, check_files
    from sweeps.report_runs import find_folder, recorded_runs

    path = find_folder(folder, runs)
    check_files(out, csv, path, detectors)
    named = Detectors.read(detectors) if detectors else Detectors(policies={}, stability=None)
    recorded = recorded_runs(path, named.stability)
    whole = Report.of(recorded, path, path.resolve().name, named.policies)
    check_signals(named.policies, recorded, str(detectors))
    whole.publish(path, out, csv, console)


@app.command(epilog="Example: evenkeel replay runs/demo/baseline/seed-0 --policy policy.yaml --plot replay.png")
def replay(  # noqa: PLR0913, PLR0917 - one for each option
    trace: Annotated[str, typer.Argument(metavar="TRACE", help=".jsonl, .csv, .parquet, run folder or MLflow run id")],
    policy: Annotated[str, typer.Option(metavar="P.yaml", help="file with the bare scheduler mapping")],
    out: Annotated[Path | None, typer.Option(metavar="F", help="write the decisions there as JSON lines")] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="OLD=NEW", help="read column OLD under the name NEW; repeatable"),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="F.png", help="also draw signal, detector and rate")] = None,
    tracking_uri: Annotated[str | None, typer.Option(metavar="URI", help="MLflow store of a run id")] = None,
    runs: RunsOption = RUNS,
) -> None:
    """What a learning-rate policy would have decided on a recorded run: JSON lines, or on a terminal the events."""
    from orchestrator.traces import Renames, read_trace
    from sweeps.replay import read_policy, signals_of
    from sweeps.replay import replay as replay_policy
    from sweeps.replay_output import check_files, publish

    check_files(out, plot, trace, policy)
    renames, config = Renames.parse(maps or []), read_policy(policy)
    recorded = read_trace(trace, signals_of(config), renames, tracking_uri, runs)
    replayed = replay_policy(config, recorded, policy, watch=plot is not None)
    publish(replayed, out, plot, console if sys.stdout.isatty() else None)


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
