"""A Ray cluster as an administrator starts it: `ray start --head` here, with a token and ports of its own."""

import os
import random
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from real_run import environment

from cluster.watchdog import MARK, guarded

BIN = Path(sys.executable).parent
UP_S, DOWN_S = 180.0, 15.0
UNASKED_PORTS = range(20000, 32000)


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster:
    """A cluster that is up.

    Example:
        RayCluster(address="http://127.0.0.1:41234", metrics="http://127.0.0.1:41235/metrics", token="0f...")
    """

    address: str
    metrics: str
    token: str

    def environment(self, **changes: str) -> dict[str, str]:
        """Of a process that may use it; `python` and `ray` are those of the tests."""
        return environment(PATH=path_with_bin(), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=self.token, **changes)

    def metric_lines(self, prefix: str) -> list[str]:
        """What the metrics page of the head says now of metrics with that prefix; nothing while it cannot be read."""
        try:
            with urlopen(self.metrics, timeout=5) as answer:
                page = answer.read().decode()
        except (HTTPException, OSError):
            return []
        return [line for line in page.splitlines() if line.startswith(prefix)]


def path_with_bin() -> str:
    return f"{BIN}{os.pathsep}{os.environ['PATH']}"


@contextmanager
def ray_cluster(cpus: int) -> Iterator[RayCluster]:
    """One node; it and all that it has started are gone at the end, and no other cluster is touched."""
    dashboard, metrics = free_ports(2)
    cluster = RayCluster(
        address=f"http://127.0.0.1:{dashboard}",
        metrics=f"http://127.0.0.1:{metrics}/metrics",
        token=secrets.token_hex(32),
    )
    with guarded() as folder:
        log = Path(folder) / "start.log"
        with log.open("w") as out:
            head = subprocess.Popen(
                start(cpus, folder, dashboard, metrics),
                cwd=folder,
                env=cluster.environment(RAY_metrics_report_interval_ms="500", **{MARK: os.environ[MARK]}),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            wait_until_up(cluster, head, log)
            yield cluster
        finally:
            if head.poll() is not None:
                print(log.read_text())  # why it has ended by itself
            end(head)


def start(cpus: int, folder: str, dashboard: int, metrics: int) -> list[str]:
    """The command that starts the node; the ports that are not named are free ones."""
    options = {
        "port": 0,
        "num-cpus": cpus,
        "object-store-memory": 100 * 2**20,
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": 0,
        "metrics-export-port": metrics,
        "min-worker-port": 0,
        "max-worker-port": 0,
        "temp-dir": folder,
    }
    return [str(BIN / "ray"), "start", "--head", "--block", *(f"--{name}={value}" for name, value in options.items())]


def wait_until_up(cluster: RayCluster, head: "subprocess.Popen[bytes]", log: Path) -> None:
    request = Request(f"{cluster.address}/api/version", headers={"Authorization": f"Bearer {cluster.token}"})
    until = time.monotonic() + UP_S
    while True:
        try:
            with urlopen(request, timeout=5):
                return
        except (HTTPException, OSError):
            assert time.monotonic() < until and head.poll() is None, log.read_text()
        time.sleep(0.2)


def end(head: "subprocess.Popen[bytes]") -> None:
    """Have the node end its processes; the watchdog ends what is left."""
    head.terminate()
    with suppress(subprocess.TimeoutExpired):
        head.wait(DOWN_S)


def free_ports(number: int) -> list[int]:
    """Ports that are free, and stay so until they are used: the kernel gives them to nobody who asks for any port."""
    found: list[int] = []
    while len(found) < number:
        port = random.choice(UNASKED_PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
    return found
