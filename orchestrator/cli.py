"""The commands that concern a single experiment: run, doctor, metrics."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from actors.faults import Faults
from cluster.job import Job
from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.experiment_file import DEFAULT_ARM, ExperimentFile
from orchestrator.model_files import find_model
from orchestrator.run.folder import run_path
from orchestrator.run.resume import check_resumable

if TYPE_CHECKING:
    from orchestrator.tracking.tracker import Tracker

app = typer.Typer(
    name="evenkeel",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Keeps reinforcement learning of language models on an even keel: runs it in arms, measures why it collapses.",
)
console = Console()

FileArgument = Annotated[str, typer.Argument(metavar="E.yaml", help="experiment file")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a value; repeatable")]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="go on where the newest good checkpoint stands; without any, from the start")
]
RunsOption = Annotated[Path, typer.Option("--runs", help="folder that holds all runs")]
RUNS = Path("runs")
PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}  # text as it is


@app.command(epilog="Example: evenkeel run examples/demo.yaml --arm decay --seed 1 --set steps=20")
def run(  # noqa: PLR0913, PLR0917 - one for each option
    file: FileArgument,
    arm: Annotated[str, typer.Option(help="arm of the file; 'default' is the file itself")] = DEFAULT_ARM,
    seed: Annotated[int | None, typer.Option(min=0, help="default: the first of the file's seeds")] = None,
    overrides: SetOption = None,
    runs: RunsOption = RUNS,
    resume: ResumeOption = False,
) -> None:
    """Train one arm with one seed; metrics go to runs/<name>/<arm>/seed-<n>/metrics.jsonl and to MLflow."""
    config = ExperimentFile.read(file, overrides or []).resolve(arm)
    model = find_model(config, file)
    from orchestrator.checkpoints.storage_check import check_storage
    from orchestrator.task_problems import TaskFiles

    task = TaskFiles.open(config, file)
    check_storage([config.checkpoint], file)
    # ray, then torch and transformers: seconds that --help and most bad input need not wait for
    from cluster.session import check_cluster, session
    from orchestrator.crew.plans import plan_of

    if not resume:  # else the run may be over
        check_cluster(config.cluster, [plan_of(config)])
    from orchestrator.crew.crews import Crews
    from orchestrator.experiment import Experiment, check_problems
    from orchestrator.run_spec import RunSpec

    seed = config.seeds[0] if seed is None else seed
    folder = run_path(runs, config.name, arm, seed)
    if resume:
        check_resumable(folder, config, seed, file)
    faults = faults_from_environment()
    spec = RunSpec(
        config=config, model=model, task=task, arm=arm, seed=seed, folder=folder, resume=resume, faults=faults
    )
    check_problems(spec)
    with tracking(config, runs) as tracker, session(config.cluster) as ray_session:
        Experiment(spec, Crews(ray_session), console).run(tracker)
    console.print(f"recorded in {spec.folder}", **PLAIN)


@app.command(epilog="Example: evenkeel doctor examples/demo.yaml --weights")
def doctor(
    file: Annotated[str | None, typer.Argument(metavar="[E.yaml]", help="experiment file")] = None,
    arm: Annotated[str, typer.Option(help="arm to check")] = DEFAULT_ARM,
    weights: Annotated[bool, typer.Option("--weights", help="start the workers and test the weight sync")] = False,
    overrides: SetOption = None,
) -> None:
    """Show the environment, the cluster and the bill of materials, and say what will not fit."""
    if file is None and weights:
        raise ConfigError("--weights", "", MISSING, "an experiment file whose workers it can start")
    config = ExperimentFile.read(file, overrides or []).resolve(arm) if file else None
    from orchestrator.doctor import examine

    if not examine(config, file or "", faults_from_environment(), weights=weights, console=console):
        raise typer.Exit(1)


@app.command(epilog="Example: evenkeel metrics rollouts.parquet --json")
def metrics(
    rollouts: Annotated[
        str, typer.Argument(metavar="ROLLOUTS", help=".jsonl or .parquet with train_logprobs and rollout_logprobs")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of a table")] = False,
) -> None:
    """Training-inference mismatch of recorded log-probs, all keys of docs/method.md section 2."""
    from orchestrator.recorded import read_mismatch

    measured = read_mismatch(rollouts).metrics()
    if as_json:
        print(json.dumps({key: value if math.isfinite(value) else None for key, value in measured.items()}))
        return
    table = Table("metric", "value")
    for key, value in measured.items():
        table.add_row(key, f"{value:.6g}")
    console.print(table)


@app.command(epilog="Example: evenkeel evaluate runs/gsm8k/decay/seed-0/model test --experiment examples/gsm8k.yaml")
def evaluate(  # noqa: PLR0913, PLR0917 - one for each option
    model: Annotated[str, typer.Argument(metavar="MODEL", help="folder, hub name or 'embedded'")],
    problems: Annotated[str, typer.Argument(metavar="SET", help="a set of the experiment, or a problem file")],
    experiment: Annotated[
        str | None, typer.Option(metavar="E.yaml", help="where template, reward and sampling are taken from")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="per problem")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 takes the likeliest token")] = None,
    first: Annotated[int | None, typer.Option(min=1, help="only the first so many problems")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the samples")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="F.parquet", help="keep all responses there")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of a table")] = False,
    overrides: SetOption = None,
) -> None:
    """How a model does on a set of problems: avg@n, maj@n and pass@n with standard errors."""
    from orchestrator.evaluation_file import evaluation_config

    options = {"samples": samples, "temperature": temperature, "problems": first}
    given = {key: value for key, value in options.items() if value is not None}
    config = evaluation_config(model, problems, experiment, given, overrides or [])
    from orchestrator.evaluate import evaluate as evaluate_model

    measured = evaluate_model(config, seed, out).metrics()
    if as_json:
        print(json.dumps(measured))
        return
    table = Table("metric", "value", "standard error")
    for key, value in measured.items():
        if not key.endswith("_se"):
            error = measured.get(f"{key}_se")
            table.add_row(key, f"{value:.6g}", "" if error is None else f"{error:.2g}")
    console.print(table)


@app.command(epilog="Example: evenkeel inspect runs/gsm8k/decay/seed-0/rollouts/train-000040.parquet")
def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help=".parquet or .jsonl with both log-probs")],
    top: Annotated[int, typer.Option(min=1, help="how many of the worst")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of a page")] = False,
) -> None:
    """Where the mismatch of recorded rollouts sits: worst tokens and sequences, by position, by probability."""
    from orchestrator.inspection import Inspection
    from orchestrator.inspection_output import as_json as json_of
    from orchestrator.inspection_output import show

    inspection = Inspection.read(file, top)
    if as_json:
        print(json.dumps(json_of(inspection)))
        return
    show(inspection, console, top)


@contextmanager
def tracking(config: ExperimentConfig, runs: Path) -> "Iterator[Tracker]":
    """The connection to MLflow: the URI of the file, else a sqlite file beside the runs."""
    from orchestrator.tracking.tracker import Tracker

    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("--runs", "", str(runs), f"a folder that can be made ({error.strerror})") from None
    root = runs.resolve()
    # A database has no place for artifacts; MLflow would put them in the working directory.
    uri, artifacts = (config.tracking.uri, None) if config.tracking.uri else (f"sqlite:///{root / 'mlflow.db'}", root)
    _warn_of_loss(root)
    tracker = Tracker(uri, artifacts, warn=_warn)
    try:
        yield tracker
    finally:
        tracker.close()


def _warn_of_loss(runs: Path) -> None:
    job = Job.of_this_process()
    if job is not None and job.loses(runs):
        _warn(f"runs go to {runs}, a copy that Ray removes some time after the job; --runs names a folder that stays")


def _warn(text: str) -> None:
    console.print(f"warning: {text}", style="yellow", **PLAIN)


def faults_from_environment() -> Faults:
    """The faults that EVENKEEL_FAULTS asks for; none when it is not set.

    Raises:
        ConfigError: it asks for something unknown.
    """
    text = os.environ.get("EVENKEEL_FAULTS", "")
    try:
        return Faults.parse(text)
    except ValueError as error:
        raise ConfigError("environment", "EVENKEEL_FAULTS", text, str(error).partition("expected ")[2]) from None
