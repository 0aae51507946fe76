"""Run a command in a network namespace that has nothing but loopback, and report what tried to leave it.

Called as `python loopback_only.py REPORT COMMAND...` inside a fresh namespace (`unshare --net`). REPORT gets the number
of route look-ups that failed, IPv4 and IPv6: every attempt to reach another machine is one.
"""

import fcntl
import socket
import struct
import subprocess
import sys
from pathlib import Path

SIOCSIFFLAGS = 0x8914
UP_AND_RUNNING = 0x1 | 0x40


def bring_loopback_up() -> None:
    """What `ip link set lo up` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", UP_AND_RUNNING))


def failed_routes() -> int:
    """Attempts to leave, as the kernel counted them in this namespace."""
    names, values = (line.split()[1:] for line in Path("/proc/net/snmp").read_text().splitlines()[:2])
    ipv4 = int(dict(zip(names, values, strict=True))["OutNoRoutes"])
    ipv6 = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    return ipv4 + int(ipv6["Ip6OutNoRoutes"])


if __name__ == "__main__":
    bring_loopback_up()
    finished = subprocess.run(sys.argv[2:], check=False)
    Path(sys.argv[1]).write_text(str(failed_routes()))
    sys.exit(finished.returncode)
