"""The commands that measure speed: bench metrics, memory, decide, sync, step, staleness, sweep, peer."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import PLAIN, console
from orchestrator.config_errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.bench.result import Result

bench_app = typer.Typer()

JsonOption = Annotated[Path | None, typer.Option("--json", metavar="F.json", help="also write all measurements there")]
STEP_PAIRS = {"demo": 15, "bigger": 3}  # a step of the bigger workload takes twenty seconds on either side
WORKLOADS = tuple(STEP_PAIRS)
SWEEP = Path(__file__).parents[1] / "examples" / "sweep.yaml"


@bench_app.callback(invoke_without_command=True)
def help_alone(context: typer.Context) -> None:
    """Measure speed and memory against the bare parts, in turns within one run."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@bench_app.command(epilog="Example: evenkeel bench metrics --json metrics.json")
def metrics(
    sequences: Annotated[int, typer.Option(min=1, help="of 256 to 8,192 tokens each")] = 1024,
    pairs: Annotated[int, typer.Option(min=1, help="measurements of each side")] = 25,
    json: JsonOption = None,
) -> None:
    """All mismatch metrics of a step, against one exponential of its tokens."""
    from orchestrator.bench.metrics import measure

    _publish(measure(sequences, pairs), json)


@bench_app.command(epilog="Example: evenkeel bench memory --tokens 2048")
def memory(
    tokens: Annotated[
        int, typer.Option(min=4, help="of the peak; a quarter of them shows that it does not grow")
    ] = 8192,
    timed_tokens: Annotated[int, typer.Option(min=1, help="that are timed; all their logits must fit")] = 512,
    pairs: Annotated[int, typer.Option(min=1, help="measurements of each side")] = 3,
    json: JsonOption = None,
) -> None:
    """Peak and time of log-probs over a vocabulary of 152k, against all logits at once."""
    from orchestrator.bench.memory import measure

    _publish(measure(tokens, timed_tokens, pairs), json)


@bench_app.command(epilog="Example: evenkeel bench decide --ranks 64 --ranks 256")
def decide(
    ranks: Annotated[list[int] | None, typer.Option(min=1, help="that report; repeatable")] = None,
    calls: Annotated[int, typer.Option(min=1, help="decisions that are timed for each")] = 30,
    json: JsonOption = None,
) -> None:
    """From the statistics of many learner ranks, through Ray, to the learning rate."""
    from orchestrator.bench.decide import measure

    _publish(measure(ranks or [1, 8, 64, 256], calls), json)


@bench_app.command(epilog="Example: evenkeel bench sync --mib 64")
def sync(
    mib: Annotated[int, typer.Option(min=64, help="of weights, roughly")] = 256,
    pairs: Annotated[int, typer.Option(min=1, help="measurements of each side")] = 9,
    json: JsonOption = None,
) -> None:
    """Weights from the learner into vLLM, against a bare broadcast and a bare load."""
    from orchestrator.bench.sync import measure

    _publish(measure(mib, pairs), json)


@bench_app.command(epilog="Example: evenkeel bench step --workload demo --trace step.json")
def step(
    workload: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"{' or '.join(WORKLOADS)}; repeatable, default both")
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="steps of each side; default 15, of the bigger workload 3")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="F.json", help="write a further step there, as a Chrome trace of driver and actors"),
    ] = None,
    json: JsonOption = None,
) -> None:
    """A whole step, against the same calls of vLLM and the same update of the bare model."""
    for name in workload or ():
        if name not in WORKLOADS:
            raise ConfigError("--workload", "", name, " or ".join(WORKLOADS))
    from orchestrator.bench.step import measure

    _publish(measure({name: pairs or STEP_PAIRS[name] for name in workload or WORKLOADS}, trace), json)


@bench_app.command(epilog="Example: evenkeel bench staleness --turns 3")
def staleness(
    turns: Annotated[int, typer.Option(min=1, help="of each run")] = 4,
    steps_per_turn: Annotated[int, typer.Option(min=1, help="one after the other")] = 5,
    seconds: Annotated[
        float, typer.Option(min=0.001, help="that stand-ins sample in a step; they learn for as long")
    ] = 0.5,
    json: JsonOption = None,
) -> None:
    """Simulated steps at max_staleness 1, against those at 0."""
    from orchestrator.bench.staleness import measure

    _publish(measure(turns, steps_per_turn, seconds), json)


@bench_app.command(epilog="Example: evenkeel bench sweep --file my-sweep.yaml")
def sweep(
    file: Annotated[Path, typer.Option(metavar="S.yaml", help="sweep file; default: the one of examples/")] = SWEEP,
    trials: Annotated[int | None, typer.Option(min=1, help="that are run; default: as many as the file says")] = None,
    json: JsonOption = None,
) -> None:
    """A whole study, against trials that share no steps; in a folder that is removed afterwards."""
    from sweeps.sweep_bench import measure

    _publish(measure(str(file), trials), json)


@bench_app.command(epilog="Example: evenkeel bench peer --workload bigger --turns 5")
def peer(
    workload: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"{' or '.join(WORKLOADS)}; repeatable, default both")
    ] = None,
    turns: Annotated[int, typer.Option(min=1, help="of each side")] = 7,
    json: JsonOption = None,
) -> None:
    """A whole step, against one of TRL's GRPOTrainer; `make bench-peer` installs that."""
    for name in workload or ():
        if name not in WORKLOADS:
            raise ConfigError("--workload", "", name, " or ".join(WORKLOADS))
    from orchestrator.bench.peer import measure

    _publish(measure(workload or WORKLOADS, turns), json)


def _publish(result: "Result", json: Path | None) -> None:
    result.show(console)
    if json is not None:
        result.write(json)
        console.print(f"written to {json}", **PLAIN)
