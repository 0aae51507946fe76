"""The network interface that a worker's connections to its peers go over: that of its node's address in the cluster.

Left to themselves gloo takes the interface of the machine's own name, which often is loopback, where no other node is;
and NCCL the first that it finds.
"""

import os
from ipaddress import ip_address
from socket import AF_INET, AF_INET6

import psutil


def use_interface_of(address: str) -> None:
    """Have the process groups of this process, and of those that it starts, use the interface with that address.

    Whoever has set a variable of theirs already knows better.
    """
    name = interface_of(address)
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # without the sign: all whose names begin so


def interface_of(address: str) -> str | None:
    """The name of this machine's interface with an address; None when it has none.

    Example:
        >>> interface_of("127.0.0.2") == interface_of("127.0.0.1")
        True
    """
    for name, found in psutil.net_if_addrs().items():
        if any(entry.family in {AF_INET, AF_INET6} and _are_one(entry.address, address) for entry in found):
            return str(name)
    return None


def _are_one(one: str, other: str) -> bool:
    """Whether two addresses are of one interface: equal, or both loopback, of which it shows one only."""
    found, wanted = (ip_address(text.partition("%")[0]) for text in (one, other))
    return found == wanted or (found.is_loopback and wanted.is_loopback)
