"""A PostgreSQL server of a test's own: its data in a temporary folder, reached at 127.0.0.1 alone."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from system_tools import system_tool

LIMIT_S = 60
ACCOUNT = "postgres"  # of the system, which Debian's package makes; the server refuses to be run by root
# No Unix socket; and nothing that a crash of the machine would need, for the data are thrown away.
WHERE = "-c listen_addresses=127.0.0.1 -c unix_socket_directories="
FAST = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"


@contextmanager
def postgres_server() -> Iterator[str]:
    """A fresh, empty database as a SQLAlchemy URL for psycopg, e.g. `postgresql+psycopg://test@127.0.0.1:40123/postgres`.

    Skips the test where there is no PostgreSQL, see `system_tools`.
    """
    programs = system_tool("postgresql", _installed())
    folder = Path(tempfile.mkdtemp(prefix="evenkeel-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, ACCOUNT)
    data, log = folder / "data", folder / "log.txt"
    try:
        _run(programs / "initdb", "-D", data, "-U", "test", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        options = f"{WHERE} -c port={port} {FAST}"
        _run(programs / "pg_ctl", "start", "-D", data, "-l", log, "-w", "-t", LIMIT_S, "-o", options, log=log)
        try:
            yield f"postgresql+psycopg://test@127.0.0.1:{port}/postgres"
        finally:
            _run(programs / "pg_ctl", "stop", "-D", data, "-m", "immediate", "-w", "-t", LIMIT_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _installed() -> list[Path]:
    """The folders of the programs, those of the newest version first."""
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    return sorted(versions, key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))], reverse=True)


def _run(*command: object, log: Path | None = None) -> None:
    """Run a program of the server's as whoever may."""
    as_whom = ["runuser", "-u", ACCOUNT, "--"] if os.geteuid() == 0 else []
    # Into files, not pipes: the server that pg_ctl leaves behind would hold them open.
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            [*as_whom, *map(str, command)], cwd="/", stdout=said, stderr=said, timeout=2 * LIMIT_S, check=False
        )
        said.seek(0)
        why = log.read_text() if log and log.exists() else ""
        assert done.returncode == 0, f"{command[0]}: {said.read()}{why}"
