"""Joining a Ray cluster or starting a private one, and always leaving it again."""

import os
import secrets
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import ray
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray._private.node import Node

from cluster import TELEMETRY_OFF
from cluster.config import ClusterConfig
from cluster.job import Job
from cluster.package import PACKAGES, ROOT
from cluster.placement import nodes, require_room, this_node
from cluster.plan import Plan
from cluster.watchdog import guarded

LOCAL = "local"  # Ray's word for a cluster of one's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A live connection to Ray.

    Example:
        Session(local=True, scratch="/tmp/evenkeel-x1y2")
    """

    local: bool  # a private Ray on this machine, reachable from this machine only
    shared: bool = False  # several runs work on it at once
    scratch: str | None = None  # of a private Ray: for its processes' temporary files, removed after it


@contextmanager
def session(config: ClusterConfig) -> Iterator[Session]:
    """Join the cluster at `config.address` (or RAY_ADDRESS), else start a private Ray; shut down on the way out.

    Token authentication is on in both cases (see `cluster/__init__.py`). A private Ray gets a fresh token and binds to
    loopback only; a cluster's token comes from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or Ray's default token file.

    Raises:
        ConnectionError: the named cluster cannot be joined.
    """
    _keep_ray_off_the_screen()
    address = _address(config)
    with _private_ray() if address == LOCAL else _joined(address) as scratch, _terminated_as_interrupted():
        yield Session(local=address == LOCAL, scratch=scratch)


def check_cluster(config: ClusterConfig, plans: Iterable[Plan]) -> None:
    """See to it that the cluster has room for each of these plans, were it idle: before anything that takes longer.

    Raises:
        PlacementError: it has not.
        ConnectionError: the named cluster cannot be joined.
    """
    if _address(config) == LOCAL:
        found = [this_node()]
    else:
        with session(config):
            found = nodes()
    for plan in dict.fromkeys(plans):
        require_room(plan, found)


def _address(config: ClusterConfig) -> str:
    return config.address or os.environ.get("RAY_ADDRESS") or LOCAL


def _keep_ray_off_the_screen() -> None:
    """Ray prints a paragraph for each worker that dies. Who has lost it says so in a line."""
    ray_worker.print_to_stdstream = lambda data, ignore_prefix: None


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end the driver as Ctrl-C does: workers stopped, what was recorded kept.

    Ray installs a handler of its own when it starts, which ends the process on the spot: ours comes after it.
    """

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _private_ray() -> Iterator[str]:
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # With Ray's multi-node support off, the node's address is 127.0.0.1 and every Ray process listens there only. The
    # children read the variable; this process has read it already, when ray was imported.
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    with guarded() as scratch:
        try:
            with _no_api_server():
                ray.init(address=LOCAL, include_dashboard=False, log_to_driver=False, configure_logging=False)
            yield scratch
        finally:
            ray.shutdown()


@contextmanager
def _no_api_server() -> Iterator[None]:
    """Leave Ray's API server out, which `include_dashboard=False` does not.

    With telemetry off or on, its usage module asks the metadata services of three clouds where it runs. A private Ray
    needs neither that nor the server.
    """
    start = Node.start_api_server
    Node.start_api_server = lambda self, **_: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Node.start_api_server = start  # type: ignore[method-assign]


@contextmanager
def _joined(address: str) -> Iterator[None]:
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            configure_logging=False,
            runtime_env=shipped(Job.of_this_process()),
        )
    except Exception as error:  # Ray raises many types here; all mean the same to whoever named the address
        raise ConnectionError(f"cannot join the Ray cluster at {address!r}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def shipped(job: Job | None) -> dict[str, Any]:
    """What the nodes need of us, beside what Ray brings them with the job: it refuses what is said twice."""
    said = job.runtime_env.get("env_vars", {}) if job is not None else {}
    # the nodes may not have it in theirs
    shipped: dict[str, Any] = {"env_vars": {name: os.environ[name] for name in TELEMETRY_OFF if name not in said}}
    if job is None or not job.has_code(ROOT):
        shipped["py_modules"] = [str(ROOT / name) for name in PACKAGES]
    return shipped
