"""A step as a Chrome trace: what the driver and every actor were at, on one time line."""

import functools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from actors.learner import Learner
from actors.rollout_worker import RolloutWorker
from actors.scheduler import Scheduler
from orchestrator.config_errors import ConfigError
from orchestrator.crew.crew import Crew
from orchestrator.crew.workers import Roles

C = TypeVar("C", bound=type[Any])
MICROSECONDS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that took a while.

    Example:
        Span(name="generate", started_s=1795600000.25, ended_s=1795600000.75, pid=4711, thread=140)
    """

    name: str
    started_s: float  # of the machine's clock, which all processes on it share
    ended_s: float
    pid: int
    thread: int


class SpanLog:
    """The spans of this process."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Note how long the with-block takes."""
        started = time.time()
        try:
            yield
        finally:
            here = os.getpid(), threading.get_native_id()
            self.spans.append(Span(name=name, started_s=started, ended_s=time.time(), pid=here[0], thread=here[1]))

    def take(self) -> list[Span]:
        """What was noted since the last time."""
        taken, self.spans = self.spans, []
        return taken


LOG = SpanLog()  # an actor is alone in its process


def noting(*methods: str) -> Callable[[C], C]:
    """A class decorator: calls of these methods, its own or inherited, are noted as spans."""

    def noted(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with LOG.span(call.__name__):
                return call(*args, **kwargs)

        return wrapped

    def decorate(of: C) -> C:
        for name in methods:
            method = noted(getattr(of, name))
            # Ray finds a method by its full name: that must not be the one it was inherited by.
            method.__module__, method.__qualname__ = of.__module__, f"{of.__qualname__}.{name}"
            setattr(of, name, method)
        return of

    return decorate


@noting("generate", "take_weight_update", "start_weight_update", "update_weights", "finish_weight_update")
class TracedRolloutWorker(RolloutWorker):
    """Notes what it does."""

    def take_spans(self) -> list[Span]:
        """Since the last time."""
        return LOG.take()


@noting("compute_gradients", "apply", "publish")
class TracedLearner(Learner):
    """Notes what it does."""

    def take_spans(self) -> list[Span]:
        """Since the last time."""
        return LOG.take()


@noting("decide", "state_dict")
class TracedScheduler(Scheduler):
    """Notes what it does."""

    def take_spans(self) -> list[Span]:
        """Since the last time."""
        return LOG.take()


TRACED = Roles(rollout=TracedRolloutWorker, learner=TracedLearner, scheduler=TracedScheduler)


def collect(crew: Crew) -> dict[str, list[Span]]:
    """The spans of all workers of a `TRACED` crew since the last time, by worker."""
    pools: Sequence[Any] = (crew.rollouts, crew.learners, crew.scheduler)
    takes = (TracedRolloutWorker.take_spans, TracedLearner.take_spans, TracedScheduler.take_spans)
    found: dict[str, list[Span]] = {}
    for pool, take in zip(pools, takes, strict=True):
        found |= dict(zip(pool.names, pool.broadcast(take), strict=True))
    return found


def chrome_trace(by_process: dict[str, list[Span]]) -> dict[str, Any]:
    """The JSON object that chrome://tracing and Perfetto open; time 0 is when the first span begins."""
    origin = min((span.started_s for spans in by_process.values() for span in spans), default=0.0)
    events: list[dict[str, Any]] = []
    for name, spans in by_process.items():
        for pid in {span.pid for span in spans}:
            events.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}})
        events += [
            {
                "ph": "X",
                "name": span.name,
                "ts": (span.started_s - origin) * MICROSECONDS,
                "dur": (span.ended_s - span.started_s) * MICROSECONDS,
                "pid": span.pid,
                "tid": span.thread,
            }
            for span in spans
        ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def write_trace(path: Path, by_process: dict[str, list[Span]]) -> None:
    """Write it.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(chrome_trace(by_process)) + "\n")
    except OSError as error:
        raise ConfigError("--trace", "", str(path), f"a file that can be written ({error.strerror})") from None
