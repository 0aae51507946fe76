"""Where the processes of a torch group meet: a file on one machine, a TCP store across machines."""

import socket
import tempfile
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

from torch.distributed import FileStore, Store, TCPStore

TIMEOUT = timedelta(minutes=10)


class Rendezvous:
    """Opened by the process of rank 0; the others `join` at its `address`.

    meeting = Rendezvous.open("127.0.0.1")      # rank 0; sends meeting.address to the others
    store = meeting.store(world_size=2)         # rank 0
    store = join(address, world_size=2)         # everyone else
    """

    def __init__(self, address: str, listener: socket.socket | None) -> None:
        self.address = address
        self._listener = listener

    @classmethod
    def open(cls, host: str) -> "Rendezvous":
        """Open one that everyone who can reach `host`, an address of this machine, can join.

        On a loopback address that is this machine alone: a file then serves, and no socket is needed at all. (A TCP
        store on loopback would ask the name server for the name of ::ffff:127.0.0.1, and alone listen everywhere.)

        Raises:
            OSError: `host` is no address of this machine.
        """
        if ip_address(host).is_loopback:
            return cls(f"file:{Path(tempfile.mkdtemp(prefix='evenkeel-')) / 'rendezvous'}", None)
        listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        return cls(f"tcp:{listener.getsockname()[1]}:{host}", listener)

    def store(self, world_size: int) -> Store:
        """The store of rank 0; returns when it can be joined, not when all have."""
        if self._listener is None:
            return join(self.address, world_size)
        host, port = self._listener.getsockname()[:2]
        # TCPStore takes the listening socket over: left to itself it would listen on all interfaces.
        return TCPStore(
            host,
            port,
            world_size,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=self._listener.detach(),
            timeout=TIMEOUT,
        )


def join(address: str, world_size: int) -> Store:
    """The store at the address of a rendezvous that is open."""
    kind, _, place = address.partition(":")
    if kind == "file":
        return FileStore(place, world_size)
    port, _, host = place.partition(":")
    return TCPStore(host, int(port), world_size, is_master=False, timeout=TIMEOUT)
