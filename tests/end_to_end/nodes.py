"""A Ray cluster of several nodes on this machine, each with a network of its own, and nodes that are lost.

Where the kernel permits it a node is a network namespace, joined to the others by a bridge: an address of its own, no
loopback in common, no name server. Elsewhere it is a raylet on a loopback address of its own. `EVENKEEL_NODES` may ask
for one of the two: `namespaces` or `loopback`.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil
from real_run import environment

CHOICE = "EVENKEEL_NODES"
NAMESPACES, LOOPBACK = "namespaces", "loopback"
UP_S = 90.0  # for a node to have joined, on a busy machine
GONE_S = 10.0  # for what was killed to be gone
LONGEST_NAME = 15  # characters that the kernel keeps of a process's name
OBJECT_STORE_BYTES = 100 * 2**20
QUICK = {
    "RAY_worker_niceness": "0",  # Ray would have its workers give way to everything else on the machine
    "RAY_health_check_period_ms": "500",  # of 3000: five refusals in a row, and a node counts as lost
}
STARTED = "Ray runtime started"  # says `ray start` when the node has joined


class Loopback:
    """Addresses of this machine's loopback tell the nodes apart, and nothing else does."""

    kind = LOOPBACK

    def address(self, number: int) -> str:
        """Of node `number`; 0 is the head."""
        return f"127.0.0.{number + 2}"

    def inside(self, number: int) -> list[str]:
        """What makes a command one that runs on the node."""
        return []

    def add(self, number: int) -> None:
        """Make the node's part of the network; the head's comes first."""


class Namespaces:
    """A network namespace for each node. The bridge is in the head's: nothing of all this is seen outside."""

    kind = NAMESPACES

    def __init__(self, stack: ExitStack) -> None:
        """Define a network; `stack` is what removes it."""
        self._prefix = f"evenkeel-{os.getpid()}-{secrets.token_hex(2)}"
        self._stack = stack

    def address(self, number: int) -> str:
        """Of node `number`; 0 is the head."""
        return f"10.77.0.{number + 1}"

    def inside(self, number: int) -> list[str]:
        """What makes a command one that runs on the node."""
        return ["nsenter", f"--net=/run/netns/{self._prefix}-{number}"]

    def add(self, number: int) -> None:
        """Make the node's part of the network; the head's comes first.

        Raises:
            OSError, subprocess.CalledProcessError: iproute2 is not there, or namespaces are not permitted.
        """
        head, own = f"{self._prefix}-0", f"{self._prefix}-{number}"
        ip("netns", "add", own)
        self._stack.callback(ip, "netns", "del", own)
        if number == 0:
            ip("-n", own, "link", "add", "cable", "type", "bridge")
        else:
            port = f"port{number}"
            ip("link", "add", port, "netns", head, "type", "veth", "peer", "name", "cable", "netns", own)
            ip("-n", head, "link", "set", port, "master", "cable", "up")
        ip("-n", own, "address", "add", f"{self.address(number)}/24", "dev", "cable")
        for device in ("lo", "cable"):
            ip("-n", own, "link", "set", device, "up")


def ip(*arguments: str) -> None:
    """Run Debian's `ip`."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def permitted() -> bool:
    """Whether network namespaces can be made here, and entered."""
    try:
        with ExitStack() as stack:
            network = Namespaces(stack)
            for number in (0, 1):
                network.add(number)
                subprocess.run([*network.inside(number), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def kind_of_network() -> str:
    """What joins the nodes here: `namespaces` or `loopback`."""
    return os.environ.get(CHOICE) or (NAMESPACES if permitted() else LOOPBACK)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNode:
    """A node that was started.

    Example:
        ClusterNode(number=1, process=Popen(...), log=Path("/tmp/ek-x1y2/1.log"))
    """

    number: int
    process: "subprocess.Popen[str]"  # `ray start`, under which all others of the node are
    log: Path  # what it says

    def processes(self) -> list[psutil.Process]:
        """All processes of the node."""
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def has(self, role: str) -> bool:
        """Whether a worker of that class is on it."""
        for process in self.processes():
            with suppress(psutil.Error):
                if process.name().startswith(f"ray::{role}"[:LONGEST_NAME]):
                    return True
        return False

    def kill(self) -> None:
        """End all its processes at once."""
        doomed = self.processes()
        for signalled in (psutil.Process.suspend, psutil.Process.kill):  # first nobody sees the others die
            for process in doomed:
                with suppress(psutil.Error):
                    signalled(process)
        self.process.wait(GONE_S)
        await_that(lambda: not any(is_alive(process) for process in doomed), GONE_S)

    @property
    def is_up(self) -> bool:
        """Whether it is there and has joined."""
        return self.process.poll() is None and STARTED in self.log.read_text()


class RayNodes:
    """The cluster: whoever runs a command on it is on the head's side."""

    def __init__(self, network: Loopback | Namespaces, place: Path) -> None:
        """Define a cluster without nodes; the first that is added is its head.

        Args:
            network: what joins them.
            place: for the nodes' files, each in a folder of its own; sockets are among them, so its name is short.
        """
        self.network = network
        self.nodes: list[ClusterNode] = []  # that are not lost
        self._numbers = count()
        self._started: list[subprocess.Popen[str]] = []
        self._place = place
        self._token = secrets.token_hex(32)
        self._port = free_port()

    @property
    def address(self) -> str:
        """Where the cluster is joined."""
        return f"{self.network.address(0)}:{self._port}"

    def environment(self, **changes: str) -> dict[str, str]:
        """Of a process that may join the cluster."""
        return environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=self._token, RAY_ADDRESS=self.address, **changes)

    def start(self, command: Sequence[str], folder: Path, screen: Path) -> "subprocess.Popen[str]":
        """Start a command on the head's side, in a folder; what it prints goes to a file."""
        arguments, env = [*self.network.inside(0), *command], self.environment()
        with screen.open("w") as output:
            started = subprocess.Popen(arguments, cwd=folder, env=env, stdout=output, stderr=output, text=True)
        self._started.append(started)
        return started

    def add(self, cpus: int) -> ClusterNode:
        """Start a further node; it joins soon."""
        number = next(self._numbers)
        self.network.add(number)
        address = self.network.address(number)
        head = ["--head", f"--port={self._port}", "--include-dashboard=false"]
        options = [
            *(["--address", self.address] if number else head),
            f"--node-ip-address={address}",
            f"--temp-dir={self._place / str(number)}",
            f"--num-cpus={cpus}",
            "--num-gpus=0",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            "--min-worker-port=0",  # any that is free: the nodes may share a machine's ports
            "--max-worker-port=0",
            "--dashboard-agent-listen-port=0",
            "--include-log-monitor=false",
            "--disable-usage-stats",
        ]
        ray_start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]
        env = self.environment(PYTHONUNBUFFERED="1", **QUICK)
        del env["RAY_ADDRESS"]  # which `ray start` would obey
        path = self._place / f"{number}.log"
        with path.open("w") as log:
            process = subprocess.Popen(
                [*self.network.inside(number), *ray_start], env=env, stdout=log, stderr=log, text=True
            )
        node = ClusterNode(number=number, process=process, log=path)
        self.nodes.append(node)
        return node

    def lose(self, node: ClusterNode) -> None:
        """What a power failure does to it."""
        node.kill()
        self.nodes.remove(node)

    def await_all(self) -> None:
        """Wait until all that are not lost have joined."""
        await_that(lambda: all(node.is_up for node in self.nodes), UP_S, self.logs)

    def logs(self) -> str:
        """What `ray start` has said on all nodes."""
        return "\n".join(node.log.read_text() for node in self.nodes)

    def close(self) -> None:
        """Kill all nodes, the head last, and what was started beside it."""
        for process in self._started:
            process.kill()
            process.wait()
        for node in reversed(self.nodes):
            self.lose(node)


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; what has ended and waits for its parent does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def ray_nodes(*cpus: int) -> Iterator[RayNodes]:
    """A cluster with a node for each number of CPUs, the head first; nothing of it is left after the with-block."""
    with ExitStack() as stack:
        place = Path(tempfile.mkdtemp(prefix="ek-"))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        network = Namespaces(stack) if kind_of_network() == NAMESPACES else Loopback()
        cluster = RayNodes(network, place)
        stack.callback(cluster.close)
        for number in cpus:
            cluster.add(number)
        cluster.await_all()
        yield cluster


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.create_server(("", 0)) as listener:
        return int(listener.getsockname()[1])


def await_that(holds: Callable[[], bool], limit_s: float, account: Callable[[], str] = str) -> None:
    """Wait until something holds; AssertionError with an account of how things stand if it does not in time."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, account()
        time.sleep(0.1)
