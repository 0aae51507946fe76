"""MLflow's own web interface on a database of runs, at 127.0.0.1 only, for as long as it is wanted."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType
from typing import IO

from cluster import TELEMETRY_OFF
from cluster.watchdog import guarded
from orchestrator.config_errors import ConfigError
from orchestrator.tracking.database_check import check_database
from orchestrator.tracking.refusals import without_passwords

HOST = "127.0.0.1"
START_LIMIT_S = 180  # MLflow alone takes some 5 s to import
END_LIMIT_S = 10
# MLflow would start processes of its own for jobs that nobody gives it here; and it takes "true" alone for a yes.
ENVIRONMENT = {**TELEMETRY_OFF, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "DO_NOT_TRACK": "true"}


def find_store(uri: str | None, runs: Path) -> tuple[str, Path | None]:
    """The database to show and where its files are kept: the URI given, else that of the runs' folder.

    Raises:
        ConfigError: there is none, or none of MLflow's. None is made.
    """
    if uri is not None:
        check_database(uri)
        return uri, None
    root = runs.resolve()
    if not (root / "mlflow.db").is_file():
        expected = "a folder with runs, their mlflow.db among them; for another database there is --tracking-uri"
        raise ConfigError("--runs", "", str(runs), expected)
    check_database(found := f"sqlite:///{root / 'mlflow.db'}")
    return found, root / "mlartifacts"


def show(uri: str, artifacts: Path | None, port: int, tell: Callable[[str], None]) -> None:
    """Serve the interface until this process is interrupted, or ends in any other way; nothing outlives it.

    Args:
        uri: SQLAlchemy URL of MLflow's database.
        artifacts: folder below which an experiment made in the interface keeps its files; None leaves that to MLflow.
        port: to listen at.
        tell: gets one line with the address as soon as it answers.

    Raises:
        ConfigError: the port is taken.
        ConnectionError: MLflow's server ended by itself, or does not answer.
    """
    _check_port(port)
    with guarded() as scratch, (Path(scratch) / "server.log").open("w+b") as log, _any_end_as_interrupt():
        server = _start(uri, artifacts, port, log)
        try:
            _wait_until_it_answers(server, port, log)
            tell(f"MLflow shows the runs at http://{HOST}:{port} (Ctrl-C ends it)")
            server.wait()
            raise ConnectionError(f"MLflow's server ended by itself: {_last_line(log)}")
        except KeyboardInterrupt:
            return
        finally:
            _end(server)


def _check_port(port: int) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ConfigError("--port", "", port, f"a port that is free at {HOST} ({why})") from None


def _start(uri: str, artifacts: Path | None, port: int, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    options = ["--host", HOST, "--port", str(port), "--workers", "1", "--no-serve-artifacts"]
    if artifacts is not None:
        options += ["--default-artifact-root", artifacts.as_uri()]
    return subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *options, "--uvicorn-opts", "--log-level warning"],
        # The URI may hold a password, which a command line would show to everyone.
        env={**os.environ, **ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": uri},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C in a terminal reaches this process alone
    )


def _wait_until_it_answers(server: "subprocess.Popen[bytes]", port: int, log: IO[bytes]) -> None:
    give_up = time.monotonic() + START_LIMIT_S
    while not _answers(port):
        if server.poll() is not None:
            raise ConnectionError(f"MLflow's server did not start: {_last_line(log)}")
        if time.monotonic() > give_up:
            raise ConnectionError(f"MLflow's server did not answer within {START_LIMIT_S} s: {_last_line(log)}")
        time.sleep(0.1)


def _answers(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200  # noqa: PLR2004 - OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return without_passwords(next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing"))


def _end(server: "subprocess.Popen[bytes]") -> None:
    """Ask it to end; what is left of it and of its processes, `guarded` kills."""
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(END_LIMIT_S)


@contextmanager
def _any_end_as_interrupt() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP of a terminal that is closed, end this process as Ctrl-C does."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {how: signal.signal(how, interrupt) for how in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for how, handler in before.items():
            signal.signal(how, handler)
