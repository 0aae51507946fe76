"""What runs in a reward process: scores what it is sent, within its memory, and dies with its parent."""

import ctypes
import json
import os
import pickle
import resource
import signal
import socket

from orchestrator.rewards.config import LimitsConfig
from orchestrator.rewards.frames import Frames, Lost
from orchestrator.rewards.scorers import Scoring, build_scorer
from orchestrator.rewards.scores import RewardItem, Score, Scorer

MIB = 1 << 20
PR_SET_PDEATHSIG = 1

# Both ways JSON: nothing that a process under a user's code has written is unpickled in the driver.
READY = b"[]"


def work(end: socket.socket, scoring: Scoring, limits: LimitsConfig, scorer: Scorer | None, parent: int) -> None:
    """Score chunks of items until the driver closes the connection.

    Receives pickled lists of (number, RewardItem). Sends READY, or `["reason"]` when there is nothing to score with;
    then `[number, value, bonus, answer, error, spent]` per item as soon as it is scored, where `spent` says that the
    process has run out of memory and had better be replaced.
    """
    _confine(limits, parent)
    frames = Frames(end)
    try:
        scorer = scorer or build_scorer(scoring)
    except BaseException as error:
        frames.send(json.dumps([str(error) or type(error).__name__]).encode())
        return
    frames.send(READY)
    while True:
        try:
            chunk = pickle.loads(frames.receive())
        except Lost:
            return
        for number, item in chunk:
            score, spent = _score(scorer, item, limits)
            frames.send(json.dumps([number, score.value, score.bonus, score.answer, score.error, spent]).encode())


def _confine(limits: LimitsConfig, parent: int) -> None:
    os.setsid()  # Ctrl-C in a terminal does not reach it, and what it starts can be killed with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # the parent died before prctl
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_mib * MIB,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _score(scorer: Scorer, item: RewardItem, limits: LimitsConfig) -> tuple[Score, bool]:
    try:
        return scorer(item), False
    except MemoryError as error:
        error.__traceback__ = None  # its frames hold what has filled the memory
        return Score.failed(f"out of memory (limit {limits.memory_mib} MiB)"), True
    except BaseException as error:  # a user's function may raise anything, SystemExit too
        return Score.failed(f"{type(error).__name__}: {_text(error)}"), False


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # an exception of the user's whose own __str__ raises
        return f"({type(second).__name__} in its text)"
