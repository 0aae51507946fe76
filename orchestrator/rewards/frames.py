"""Messages over a socket between the driver and a reward process: a length, then that many bytes."""

import socket
import struct

LENGTH = struct.Struct("<I")
AT_ONCE = 1 << 16
LONGEST_SCORE = 1 << 20  # bytes; what claims to be longer does not come from our code


class Lost(ConnectionError):
    """The other side is gone, or does not speak this language."""


class Frames:
    """One end of the socket: whole frames in, whole frames out."""

    def __init__(self, end: socket.socket, longest: int | None = None) -> None:
        """Take over a connected stream socket.

        Args:
            end: it is closed with this object.
            longest: bytes of the longest frame that is received; None sets no bound.
        """
        self._end = end
        self._longest = longest
        self._received = bytearray()

    def fileno(self) -> int:
        """For select."""
        return self._end.fileno()

    def send(self, frame: bytes) -> None:
        """Send a frame; Lost when the other side is gone or reads nothing for the socket's timeout."""
        try:
            self._end.sendall(LENGTH.pack(len(frame)) + frame)
        except OSError as error:
            raise Lost(str(error)) from error

    def receive(self) -> bytes:
        """Wait for a frame; Lost when the other side is gone."""
        while (frame := self._next()) is None:
            self._read()
        return frame

    def arrived(self) -> list[bytes]:
        """The frames that are complete after one read of a socket that select found readable; Lost as above."""
        self._read()
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def close(self) -> None:
        """Close the socket."""
        self._end.close()

    def _read(self) -> None:
        try:
            piece = self._end.recv(AT_ONCE)
        except OSError as error:
            raise Lost(str(error)) from error
        if not piece:
            raise Lost("the other side has closed the connection")
        self._received += piece

    def _next(self) -> bytes | None:
        if len(self._received) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._received)
        if self._longest is not None and length > self._longest:
            raise Lost(f"a frame of {length} bytes")
        end = LENGTH.size + length
        if len(self._received) < end:
            return None
        frame = bytes(self._received[LENGTH.size : end])
        del self._received[:end]
        return frame
