"""Where processes meet: a file on one machine, and elsewhere a socket on the one address that was named."""

import socket
import stat
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest

from actors import rendezvous
from actors.rendezvous import Rendezvous, join


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; only asks which address would
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


def exchange(meeting: Rendezvous) -> list[bytes]:
    """What rank 0 and another process read of each other's values."""
    seen = []

    def other() -> None:
        store = join(meeting.address, world_size=2)
        store.set("from 1", "b")
        seen.append(store.get("from 0"))

    thread = Thread(target=other)
    thread.start()
    store = meeting.store(world_size=2)
    store.set("from 0", "a")
    seen.append(store.get("from 1"))
    thread.join(timeout=30)
    return sorted(seen)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_on_loopback_processes_meet_in_a_private_file_without_a_socket(
    host: str, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "TCPStore", None)
    monkeypatch.setattr(socket, "create_server", None)
    meeting = Rendezvous.open(host)
    assert exchange(meeting) == [b"a", b"b"]
    place = Path(meeting.address.removeprefix("file:"))
    assert place.is_relative_to(scratch)
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700


def test_two_rendezvous_have_nothing_in_common() -> None:
    one, other = Rendezvous.open("127.0.0.1"), Rendezvous.open("127.0.0.1")
    one.store(world_size=1).set("key", "value")
    assert one.address != other.address
    store = other.store(world_size=1)
    store.set_timeout(timedelta(seconds=0.1))
    assert not store.check(["key"])


def test_across_machines_processes_meet_at_the_named_address(own_address: str) -> None:
    assert exchange(Rendezvous.open(own_address)) == [b"a", b"b"]


def test_no_other_address_of_the_machine_answers(own_address: str) -> None:
    meeting = Rendezvous.open(own_address)
    kind, port, host = meeting.address.split(":")
    assert (kind, host) == ("tcp", own_address)
    store = meeting.store(world_size=1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)), timeout=5)
    assert store.num_keys() >= 0, "the store is alive all the while"


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OSError, match=r"assign|address"):
        Rendezvous.open("192.0.2.1")  # reserved for documentation
