"""One Ray actor made from a plain class: called, asked for a sign of life, killed."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray._private.state import actors
from ray.exceptions import GetTimeoutError, RayError, RayTaskError, UnserializableException

from cluster.actor import ASIDE, PULSE, actor
from cluster.interface import use_interface_of
from cluster.packing import packed, unpacked
from cluster.placement import Slot, is_there, room_lost

READY_S = 10.0  # for handing over a result that Ray says is there


class WorkerLost(RuntimeError):
    """A worker died or fell silent. `worker` names it, `method` is the call it did not answer."""

    def __init__(self, worker: str, method: str, reason: str) -> None:
        super().__init__(f"{worker} was lost in {method}: {reason}")
        self.worker = worker
        self.method = method
        self.reason = reason

    @property
    def role(self) -> str:
        """The worker's name without its number."""
        return self.worker.rpartition("-")[0]


class WorkerFailed(RuntimeError):
    """A worker raised something that cannot be brought here; its cause has the remote traceback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that was made.

    Example:
        Call(worker=worker, method="generate", ref=ObjectRef(...))
    """

    worker: "Worker"
    method: str
    ref: Any
    is_packed: bool = False

    def outcome(self) -> Any:
        """What came of it, once Ray says that it is there: the result, a WorkerLost, or what the worker raised."""
        try:
            result = ray.get(self.ref, timeout=READY_S)
        except GetTimeoutError:
            return WorkerLost(self.worker.name, self.method, f"its answer could not be fetched in {READY_S:g} s")
        except UnserializableException as error:  # what it raised cannot be put together again here
            return self._failed(error)
        except RayTaskError as error:
            return self._raised(error)
        except RayError as error:  # the actor is dead, or its answer is lost with its node
            return self._lost(error, error)
        return self.opened(result)

    def opened(self, result: Any) -> Any:
        """The result as it was before it was packed for the way here, or why it cannot be had."""
        try:
            return unpacked(result) if self.is_packed else result
        except Exception as error:  # whatever its class says when it is put together again here
            return self._failed(error)

    def _raised(self, error: RayTaskError) -> Exception:
        cause: Exception = error.cause
        if type(cause) is RayError:  # what it raised could not be packed there
            return self._failed(error)
        if isinstance(cause, RayError):  # it lost a worker that it had called itself
            return self._lost(cause, error)
        # What the worker itself raised, under its own type; Ray's wrapper holds the remote traceback.
        cause.__cause__ = error
        return cause

    def _lost(self, told: Exception, error: Exception) -> WorkerLost:
        lost = WorkerLost(self.worker.name, self.method, _headline(told))
        lost.__cause__ = error
        return lost

    def _failed(self, error: Exception) -> WorkerFailed:
        failed = WorkerFailed(f"{self.worker.name} failed in {self.method}: {_last_line(error)}")
        failed.__cause__ = error
        return failed


def outcomes(calls: Sequence[Call]) -> list[Any]:
    """`Call.outcome` of many calls, in their order."""
    refs = [call.ref for call in calls]
    try:
        results: list[Any] = ray.get(refs, timeout=READY_S)  # together: enough where all is well
    except Exception:  # whatever it is, it is told of the call that it came of
        return [call.outcome() for call in calls]
    return [call.opened(result) for call, result in zip(calls, results, strict=True)]


class Worker:
    """An actor in its reserved place."""

    _slot: Slot | None = None  # None: others see to it
    _placeless_since: float | None = None

    def __init__(  # noqa: PLR0913, PLR0917 - all that an actor is made of
        self,
        worker: type[Any],
        slot: Slot,
        name: str,
        arguments: tuple[Any, ...],
        env: Mapping[str, str],
        title: str = "",
    ) -> None:
        """Start it; returns before it is up.

        Args:
            worker: a plain class.
            slot: its reserved place.
            name: for messages, and as a label in Ray.
            arguments: of the class's constructor.
            env: environment variables of its process.
            title: of what it works for, to be shown by Ray beside its name.
        """
        self._take(actor(worker, slot, name, arguments, env, title=title), worker, name)
        self._slot = slot
        self.handle.__ray_call__.remote(_use_interface_of_node)  # before anything that it is called for

    def _take(self, handle: Any, worker: type[Any], name: str) -> None:
        self.handle = handle
        self._class_name = worker.__name__
        self.name = name
        self._sending: dict[str, Any] = {}  # by method; Ray makes a class of every option that a call is given
        self.first_sign = self.ping()  # answered as soon as it is up

    @property
    def address(self) -> Any:
        """What workers of another role call it by: Ray's handle."""
        return self.handle

    @property
    def has_been_up(self) -> bool:
        """Whether it can give a sign of life; coming up may take much longer than that."""
        return bool(ray.wait([self.first_sign.ref], timeout=0)[0])

    def require_place(self) -> None:
        """See that it may still come up.

        Raises:
            PlacementError: its node was lost, and for the time that its slot allows no other has had room for it.
        """
        if self._slot is None or is_there(self._slot):
            self._placeless_since = None
            return
        now = time.monotonic()
        self._placeless_since = self._placeless_since or now
        if now - self._placeless_since > self._slot.timeout_s:
            raise room_lost(self._slot)

    def call(self, method: str, *args: Any, **kwargs: Any) -> Call:
        """Have `method` called after all that it was asked before."""
        return Call(worker=self, method=method, ref=getattr(self.handle, method).remote(*args, **kwargs))

    def send(self, method: str, item: Any) -> Call:
        """Like `call`, for a message: `item` and the result may be large, and hold no reference of Ray's."""
        if method not in self._sending:
            self._sending[method] = self._bound(method)
        return Call(
            worker=self, method=method, ref=self._sending[method].remote(self._message(method, item)), is_packed=True
        )

    def _bound(self, method: str) -> Any:
        return self.handle.call_packed.options(name=self._shown(method))

    def _shown(self, method: str) -> str:
        """How Ray shows the call of a method that it does not see."""
        return f"{self._class_name}.{method}"

    def _message(self, method: str, item: Any) -> bytes:
        return packed((method, item))

    def call_aside(self, method: str, *args: Any) -> Call:
        """Have `method` called beside whatever it is at."""
        bound = getattr(self.handle, method).options(concurrency_group=ASIDE)
        return Call(worker=self, method=method, ref=bound.remote(*args))

    def ping(self) -> Call:
        """Ask for a sign of life."""
        return Call(worker=self, method="ping", ref=self._beside(_nothing))

    def host(self) -> Call:
        """Ask for the address of its node inside the cluster."""
        return Call(worker=self, method="host", ref=self._beside(_host))

    def strike(self, signum: signal.Signals) -> None:
        """Have it get a signal, whatever it is at: a fault on purpose. On this machine it has got it on return."""
        process = self._process_here()
        if process is None:
            self._beside(_signal_itself, signum)
            return
        with suppress(psutil.Error):
            process.send_signal(signum)

    def kill(self) -> None:
        """End it, even when it is stopped."""
        process = self._process_here()
        ray.kill(self.handle)
        if process is not None:  # Ray would give a stopped process some seconds before it kills it
            with suppress(psutil.Error):
                process.kill()

    def _process_here(self) -> psutil.Process | None:
        """Its process, if that is alive and on this machine."""
        known = actors(self.handle._actor_id.hex())
        if not known or known["State"] != "ALIVE" or known["Address"]["IPAddress"] != ray.util.get_node_ip_address():
            return None
        try:
            process = psutil.Process(known["Pid"])
            return process if process.name().startswith("ray::") else None
        except psutil.Error:
            return None

    def _beside(self, function: Any, *args: Any) -> Any:
        return self.handle.__ray_call__.options(concurrency_group=PULSE).remote(function, *args)


def _nothing(actor: Any) -> None:
    """What a ping has done."""


def _host(actor: Any) -> str:
    address: str = ray.util.get_node_ip_address()
    return address


def _use_interface_of_node(actor: Any) -> None:
    use_interface_of(_host(actor))


def _signal_itself(actor: Any, signum: signal.Signals) -> None:
    os.kill(os.getpid(), signum)


def _last_line(error: Exception) -> str:
    """Of a remote traceback: what was raised."""
    return str(error).strip().rpartition("\n")[2]


def _headline(error: Exception) -> str:
    """The first line of Ray's account; the rest, addresses and hints, goes to the log with the traceback."""
    return str(error).strip().partition("\n")[0].removesuffix(".")
