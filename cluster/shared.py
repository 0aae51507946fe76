"""Several workers of one role in one Ray actor, each with a thread of its own: for stand-ins, which are many."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from cluster.actor import ASIDE, PULSE, actor
from cluster.packing import packed, unpacked
from cluster.placement import Slot
from cluster.worker import Call, Worker


class Host:
    """The process: instances of a plain class, numbered from 0. Calls of one instance keep their order."""

    def __init__(self, worker: type[Any], arguments: Sequence[tuple[Any, ...]]) -> None:
        self._instances = [worker(*of_one) for of_one in arguments]

    def call(self, asked: tuple[int, str, Sequence[Any], Mapping[str, Any]]) -> Any:
        """Call a method of an instance: its place, the method and the arguments, one thing for Ray to look at."""
        place, method, args, kwargs = asked
        return getattr(self._instances[place], method)(*args, **kwargs)

    def call_packed_at(self, message: bytes) -> bytes:
        """Call a method of one argument of an instance: the message is its packed place, method and argument."""
        place, method, item = unpacked(message)
        return packed(getattr(self._instances[place], method)(item))


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What workers of another role reach one of a shared process by; it can be sent to them.

    Example:
        Member(handle=handle, place=3).ask("receive", weights, 12)()
    """

    handle: Any  # Ray's, of the host
    place: int  # in the process

    def ask(self, method: str, *args: Any) -> Callable[[], Any]:
        """Call a method after all that the member was asked before; what this returns waits for the result."""
        ref = self.call(method, args, {})
        return lambda: ray.get(ref)

    def call(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any], group: str = "") -> Any:
        """Ray's reference to what will come of a call, made in the member's own thread or in that of a group."""
        bound = self.handle.call.options(concurrency_group=group or str(self.place))
        return bound.remote((self.place, method, args, kwargs))


class SharingWorker(Worker):
    """One of a shared process. It is called like any other; whatever ends its process ends those beside it, too."""

    def __init__(self, worker: type[Any], member: Member, name: str) -> None:
        self.member = member
        self._take(member.handle, worker, name)

    @property
    def address(self) -> Member:
        """What workers of another role call it by."""
        return self.member

    def call(self, method: str, *args: Any, **kwargs: Any) -> Call:
        """Have `method` called after all that this one was asked before, beside what the others are at."""
        return Call(worker=self, method=method, ref=self.member.call(method, args, kwargs))

    def call_aside(self, method: str, *args: Any) -> Call:
        """Have `method` called beside whatever it is at."""
        return Call(worker=self, method=method, ref=self.member.call(method, args, {}, ASIDE))

    def _bound(self, method: str) -> Any:
        return self.handle.call_packed_at.options(concurrency_group=str(self.member.place), name=self._shown(method))

    def _message(self, method: str, item: Any) -> bytes:
        return packed((self.member.place, method, item))


def shared_process(  # noqa: PLR0913 - as a worker, and how its process is called
    worker: type[Any],
    slots: Sequence[Slot],
    names: Sequence[str],
    arguments: Sequence[tuple[Any, ...]],
    env: Mapping[str, str],
    *,
    title: str,
) -> list[Worker]:
    """Start a process of as many workers as there are slots; returns before it is up.

    It sits at the first slot, with the room of that one; that of the others stays reserved for them.
    """
    groups = {str(place): 1 for place in range(len(slots))} | {PULSE: 1, ASIDE: len(slots)}
    # Ray shows processes by the names of classes.
    named = type(worker.__name__, (Host,), {"__doc__": worker.__doc__, "__module__": Host.__module__})
    label = names[0] if len(names) == 1 else f"{names[0]}..{names[-1].rpartition('-')[2]}"
    handle = actor(named, slots[0], label, (worker, arguments), env, title=title, groups=groups)
    return [SharingWorker(worker, Member(handle=handle, place=place), name) for place, name in enumerate(names)]
