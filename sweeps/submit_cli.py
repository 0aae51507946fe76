"""The command that runs others on a cluster: `evenkeel submit {run,compare,sweep}`."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from orchestrator.cli import PLAIN, console
from orchestrator.config_errors import MISSING, ConfigError

if TYPE_CHECKING:
    from cluster.package import Package
    from cluster.submit import JobClient, JobEnd, JobOrder
    from sweeps.submission import Submission

COMMANDS = ("run", "compare", "sweep")
INTERRUPTED = 130
AddressOption = Annotated[
    str, typer.Option(metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="dashboard of the cluster: http://head:8265")
]
RestArgument = Annotated[
    list[str] | None, typer.Argument(metavar="FILE [OPTIONS...]", help="as the command itself takes them")
]


def submit(  # noqa: PLR0913, PLR0917 - one for each option
    context: typer.Context,
    command: Annotated[str, typer.Argument(metavar="{run|compare|sweep}", help="what the job does")],
    address: AddressOption,
    rest: RestArgument = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="print what the job prints, and end as it ends")
    ] = True,
    stop_on_interrupt: Annotated[
        bool, typer.Option("--stop-on-interrupt", help="Ctrl-C stops the job, too; else it goes on")
    ] = False,
    driver_cpus: Annotated[
        float, typer.Option(min=0, help="reserved for the driver, away from GPUs if possible; 0: on the head node")
    ] = 1.0,
    driver_label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="label the driver's node has; repeatable")
    ] = None,
) -> None:
    """Run a command as a job of a Ray cluster; the current folder is sent along."""
    _check_address(address)
    labels = dict(_pair(text) for text in driver_label or [])
    inner = _parsed(context, command, rest or [])
    from sweeps.submission import Submission

    folder, given = Path.cwd(), inner.params
    submission = Submission.check(command, given["file"], given["overrides"] or [], given.get("arm", ""), folder)
    runs = given["runs"].expanduser().absolute()
    written = _written(inner, {"file": submission.file.as_posix(), "runs": str(runs)})
    from cluster.submit import JobOrder
    from orchestrator.tracking.tracker import COMMIT, git_commit

    with TemporaryDirectory(prefix="evenkeel-") as scratch:
        package = _packed(submission, runs, folder, Path(scratch))
        order = JobOrder(
            entrypoint=shlex.join(["python", "-m", "sweeps", command, *written]),
            package=str(package.path),
            cpus=driver_cpus,
            labels=labels,
            env_vars={"COLUMNS": str(console.width), **({COMMIT: commit} if (commit := git_commit()) else {})},
        )
        client, job = _handed_in(address, order)
    _say(f"{job}: {order.entrypoint}")
    _say(f"{job}: sent {package.num_files} files, {package.num_bytes / 2**20:.1f} MiB; runs are kept in {runs}")
    if follow:
        sys.exit(_follow(client, job, address, stop_on_interrupt))
    _say(_how_to_go_on(job, address))


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise ConfigError("--address", "", address, "the URL of a cluster's dashboard, such as http://head:8265")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ConfigError("--driver-label", "", text, "KEY=VALUE, such as market-type=on-demand")
    return key, value


def _parsed(context: typer.Context, command: str, rest: list[str]) -> Any:
    """The command's own reading of its arguments; what it does not know it refuses here."""
    if command not in COMMANDS:
        raise ConfigError("submit", "", command, f"one of: {', '.join(COMMANDS)}")
    root: Any = context.find_root()
    return root.command.commands[command].make_context(command, rest, parent=root)


def _written(inner: Any, instead: dict[str, str]) -> Iterator[str]:
    """The arguments again as they were given, but for some."""
    for parameter in inner.command.params:
        value = instead.get(parameter.name, inner.params[parameter.name])
        is_given = inner.get_parameter_source(parameter.name).name == "COMMANDLINE"
        if parameter.param_type_name == "argument":
            yield value
        elif parameter.is_flag and is_given:
            yield parameter.opts[0]
        elif is_given or parameter.name in instead:
            for each in value if isinstance(value, list) else [value]:
                yield from (parameter.opts[0], str(each))


def _packed(submission: "Submission", runs: Path, folder: Path, scratch: Path) -> "Package":
    from cluster.package import TooLarge, pack

    left_out = [f"/{runs.relative_to(folder).as_posix()}/"] if runs.is_relative_to(folder) and runs != folder else []
    try:
        needed = [folder / path for path in submission.needed]
        return pack(folder, needed, left_out, scratch / f"{submission.name}.zip")
    except TooLarge as error:
        largest = ", ".join(f"{name} ({size / 2**20:.0f} MiB)" for name, size in error.largest)
        expected = f"no {error} to send: name what the cluster shall not get in a .rayignore there; largest: {largest}"
        raise ConfigError(str(folder), "", MISSING, expected) from None
    except OSError as error:
        raise ConfigError(str(folder), "", MISSING, f"files that can be sent ({error})") from None


def _handed_in(address: str, order: "JobOrder") -> "tuple[JobClient, str]":
    from cluster.submit import JobClient, NoAccess, Unreachable

    try:
        client = JobClient(address)
        return client, client.submit(order)
    except NoAccess as error:
        where = "RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
        raise ConfigError("--address", "", MISSING, f"{error}; it is taken from {where}") from None
    except Unreachable as error:
        raise ConfigError("--address", "", address, f"a Ray cluster's dashboard that answers ({error})") from None


def _follow(client: "JobClient", job: str, address: str, stop_on_interrupt: bool) -> int:
    """Print what the job prints; returns the exit code: the driver's, or 130 after Ctrl-C."""
    try:
        return _code(client.follow(job, _echo), job)
    except KeyboardInterrupt:
        if not stop_on_interrupt:
            _say(_how_to_go_on(job, address))
            return INTERRUPTED
    _say(f"{job}: is being stopped; Ctrl-C leaves it to that")
    client.stop(job)
    _code(client.follow(job, _echo), job)
    return INTERRUPTED


def _code(end: "JobEnd", job: str) -> int:
    if end.exit_code is not None:
        _say(f"{job}: {end.state}, exit code {end.exit_code}")
        return end.exit_code
    if end.state == "stopped":
        _say(f"{job}: stopped")
        return INTERRUPTED
    _say(f"{job}: {end.state}: {' '.join(end.message.split())}")
    return 1


def _how_to_go_on(job: str, address: str) -> str:
    return f"{job} goes on: ray job logs --address {address} --follow {job}, or ray job stop --address {address} {job}"


def _echo(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(text: str) -> None:
    console.print(text, **PLAIN)
