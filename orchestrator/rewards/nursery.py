"""Where reward processes come from: a small process, single-threaded and without torch, that forks and reaps them.

The driver has threads and torch, so it is never forked itself. The nursery has loaded what the scorers need, and a new
process is there in milliseconds. It reaps a process only when asked to, so a process number is never another's.
"""

import contextlib
import gc
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
from typing import Any

from orchestrator.rewards.config import LimitsConfig, PythonReward
from orchestrator.rewards.frames import LONGEST_SCORE, Frames
from orchestrator.rewards.scorers import Scoring, build_scorer
from orchestrator.rewards.worker import work

FORK, REAP, REQUEST_BYTES, HELLO_BYTES = b"f", b"r", 64, 1024
START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 60.0
LOOK_EVERY_S = 1.0
# sys.path first: the nursery imports what the driver would.
BOOT = "import sys; sys.path[:] = sys.argv[2:]; from orchestrator.rewards.nursery import main; main(int(sys.argv[1]))"


class NurseryLost(RuntimeError):
    """The nursery cannot be started, or cannot fork."""


class Nursery:
    """The driver's side. Starts the process when it is first needed, and again after it has died.

    nursery = Nursery(scoring, limits)
    pid, frames = nursery.fork()
    print(nursery.reap(pid))   # kills it first: "was killed by signal 9 (SIGKILL)"
    """

    def __init__(self, scoring: Scoring, limits: LimitsConfig) -> None:
        """Args: scoring, limits: of every process forked here."""
        self._first_message = pickle.dumps((scoring, limits))
        self._time_limit_s = limits.time_limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def fork(self) -> tuple[int, Frames]:
        """A new process and the connection to it; NurseryLost when that cannot be had."""
        ours, theirs = socket.socketpair()
        ours.settimeout(max(self._time_limit_s, 1.0))
        with theirs:
            for attempt in (1, 2):
                try:
                    if self._control is None:
                        self._start()
                    pid = int(self._ask(FORK, theirs.fileno()))
                    return pid, Frames(ours, LONGEST_SCORE)
                except (OSError, ValueError) as error:
                    self.close()
                    if attempt == 2:  # noqa: PLR2004
                        ours.close()
                        raise NurseryLost(f"no reward process could be started: {error}") from error
        raise AssertionError("unreachable")

    def reap(self, pid: int) -> str:
        """Kill a process with all it has started, unless it is dead already; says how it ended."""
        try:
            answer = self._ask(REAP + str(pid).encode())
        except OSError:
            self.close()  # and with it all that it has forked
            answer = b""
        if not answer.isdigit():
            return "was killed with all reward processes"
        status = int(answer)
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        return f"was killed by signal {-code} ({name})"

    def close(self) -> None:
        """End the nursery, which kills all it has forked."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(ANSWER_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            path = [os.getcwd(), *(os.path.abspath(entry) for entry in sys.path)]
            # One thread per process, and the same order of sets in each: scores are to repeat.
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT, str(theirs.fileno()), *dict.fromkeys(path)],
                env={**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._control = ours
        ours.settimeout(START_TIMEOUT_S)
        ours.send(self._first_message)
        if (hello := ours.recv(HELLO_BYTES)) != FORK:
            raise OSError(hello.decode(errors="replace") or "it ended at once")
        ours.settimeout(ANSWER_TIMEOUT_S)

    def _ask(self, request: bytes, *fds: int) -> bytes:
        if self._control is None:
            raise OSError("there is no nursery")
        socket.send_fds(self._control, [request], list(fds))
        return self._control.recv(REQUEST_BYTES)


def main(control_fd: int) -> None:
    """The nursery process: forks and reaps on request until the driver is gone, and then kills what is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    driver = os.getppid()
    control = socket.socket(fileno=control_fd)
    scoring, limits = pickle.loads(control.recv(1 << 20))
    # A user's module may start threads, which a fork would not survive: each process imports it for itself.
    try:
        scorer = None if isinstance(scoring.reward, PythonReward) else build_scorer(scoring)
    except Exception as error:
        control.send(f"{type(error).__name__}: {error}".encode()[:HELLO_BYTES])
        return
    gc.freeze()  # what is loaded by now stays shared with those that are forked
    control.send(FORK)
    children: set[int] = set()
    while True:
        # Asking for the parent too: something else may have inherited the driver's end of the socket.
        if not select.select([control], [], [], LOOK_EVERY_S)[0] and os.getppid() == driver:
            continue
        request, fds, _, _ = socket.recv_fds(control, REQUEST_BYTES, 1) if os.getppid() == driver else (b"", [], 0, 0)
        if not request:
            break
        if request == FORK:
            children.add(_fork(control, fds[0], (scoring, limits, scorer)))
        else:
            pid = int(request[1:])
            control.send(str(_kill(pid)).encode() if pid in children else b"of an earlier nursery")
            children.discard(pid)
    for pid in children:
        _kill(pid)


def _fork(control: socket.socket, fd: int, what: tuple[Scoring, LimitsConfig, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            control.close()
            work(socket.socket(fileno=fd), *what, parent)
        finally:
            os._exit(1)
    os.close(fd)
    control.send(str(pid).encode())
    return pid


def _kill(pid: int) -> int:
    """The wait status of a child that is dead now."""
    for kill in (os.kill, os.killpg):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]
