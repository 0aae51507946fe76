"""Listening sockets that stay on the address they were given."""

import socket


def listen(host: str) -> socket.socket:
    """A listening TCP socket on a free port of `host` (pass it on by file descriptor; TCPStore alone binds everywhere).

    Raises:
        OSError: `host` is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind((host, 0))
    listener.listen(512)
    return listener
