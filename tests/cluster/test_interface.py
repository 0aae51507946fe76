"""Which interface process groups use: that with the node's address, unless somebody has said otherwise."""

import os
import socket

import psutil
import pytest

from cluster.interface import interface_of, use_interface_of

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither variable is set, and both are as before afterwards."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_every_address_of_this_machine_has_its_interface() -> None:
    for name, found in psutil.net_if_addrs().items():
        for entry in found:
            if entry.family == socket.AF_INET and not entry.address.startswith("127."):
                assert interface_of(entry.address) == name


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.3"])
def test_loopback_is_one_interface_whatever_its_address(address: str) -> None:
    addresses = psutil.net_if_addrs()[str(interface_of(address))]
    assert "127.0.0.1" in {entry.address for entry in addresses}


def test_an_address_of_another_machine_has_none_and_changes_nothing() -> None:
    assert interface_of("198.51.100.7") is None
    use_interface_of("198.51.100.7")
    assert not set(VARIABLES) & os.environ.keys()


def test_both_libraries_are_told_and_nccl_the_exact_name() -> None:
    use_interface_of("127.0.0.1")
    name = interface_of("127.0.0.1")
    assert [os.environ[variable] for variable in VARIABLES] == [name, f"={name}"]


def test_what_is_set_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    use_interface_of("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0"
