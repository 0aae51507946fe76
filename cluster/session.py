"""Joining a Ray cluster or starting a private one, and always leaving it again."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._private import ray_constants

from cluster.config import ClusterConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A live connection to Ray.

    Example:
        Session(local=True, host="127.0.0.1")
    """

    local: bool  # a private Ray on this machine, reachable from this machine only
    host: str  # address that this driver's node has inside the cluster


@contextmanager
def session(config: ClusterConfig) -> Iterator[Session]:
    """Join the cluster at `config.address` (or RAY_ADDRESS), else start a private Ray; shut down on the way out.

    Token authentication is on in both cases (see `cluster/__init__.py`). A private Ray gets a fresh token and binds to
    loopback only; a cluster's token comes from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or Ray's default token file.

    Raises:
        ConnectionError: the named cluster cannot be joined.
    """
    address = config.address or os.environ.get("RAY_ADDRESS")
    if address is None:
        _start_private_ray()
    else:
        _join(address)
    try:
        yield Session(local=address is None, host=ray.util.get_node_ip_address())
    finally:
        ray.shutdown()


def _start_private_ray() -> None:
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # With Ray's multi-node support off, the node's address is 127.0.0.1 and every Ray process listens there only. The
    # children read the variable; this process has read it already, when ray was imported.
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    ray.init(address="local", include_dashboard=False, log_to_driver=False, configure_logging=False)


def _join(address: str) -> None:
    packages = [str(Path(__file__).parents[1] / name) for name in ("actors", "cluster", "orchestrator", "sweeps")]
    try:
        ray.init(address=address, log_to_driver=False, runtime_env={"py_modules": packages})
    except Exception as error:  # Ray raises many types here; all mean the same to whoever named the address
        raise ConnectionError(f"cannot join the Ray cluster at {address!r}: {error}") from error
