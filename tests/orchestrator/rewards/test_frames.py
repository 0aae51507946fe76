"""Frames over a socket: whole ones come out however they were cut, and what is no frame is refused."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.rewards.frames import Frames, Lost


@given(frames=st.lists(st.binary(max_size=50), min_size=1, max_size=10), cut=st.integers(1, 40))
def test_frames_arrive_whole_and_in_order(frames: list[bytes], cut: int) -> None:
    ours, theirs = socket.socketpair()
    recorded, sender = socket.socketpair()
    receiver, writer = Frames(ours), Frames(sender)
    for frame in frames:
        writer.send(frame)
    sent = recorded.recv(1 << 16)
    arrived = []
    for start in range(0, len(sent), cut):
        theirs.sendall(sent[start : start + cut])
        arrived += receiver.arrived()
    assert arrived == frames
    for end in (theirs, recorded):
        end.close()
    receiver.close()
    writer.close()


def test_a_closed_connection_is_a_loss_on_both_ways() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    frames = Frames(ours)
    with pytest.raises(Lost):
        frames.receive()
    with pytest.raises(Lost):
        frames.send(b"x" * 1_000_000)
    frames.close()


def test_a_frame_longer_than_allowed_is_a_loss() -> None:
    ours, theirs = socket.socketpair()
    frames = Frames(ours, longest=10)
    with theirs:
        theirs.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(Lost, match="4294967295 bytes"):
            frames.arrived()
    frames.close()
