"""Faults on purpose: the switch that shows a safeguard at work."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

PHASES = ("rollout", "score", "evaluate", "gradients", "decide", "apply", "publish", "record")
_DROP = re.compile(r"drop tensor (\S+)")
_STRIKE = re.compile(
    r"(?:(?P<action>kill|stop) (?P<role>(?:rollout|learner) \d{1,6}|scheduler)|(?P<driver>kill driver))"
    rf" at step (?P<step>\d{{1,9}})(?: in (?P<phase>{'|'.join(PHASES)}))?"
    r"(?: after (?P<after>\d{1,6}(?:\.\d{1,6})?) s)?"
)
_FORMS = (
    "'drop tensor NAME' (* matches any text), 'keep prefix cache', or 'kill WHO at step N in PHASE after X s' with"
    " 'stop' for 'kill' if you like; WHO is rollout N, learner N, scheduler or (kill only) driver,"
    f" PHASE one of {', '.join(PHASES)}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A process that is killed or stopped at a certain moment of a run, once.

    Example:
        Strike(action="kill", role="rollout", index=0, step=3, phase="publish", after_s=0.05)
    """

    action: Literal["kill", "stop"]  # SIGKILL or SIGSTOP
    role: str  # rollout, learner, scheduler or driver
    index: int  # of the worker in its role
    step: int
    phase: str
    after_s: float  # seconds into the phase

    @staticmethod
    def parse(text: str) -> "Strike | None":
        """Read one, as in `kill rollout 0 at step 3 in publish after 0.05 s`; None when it is none.

        Without a phase it is the rollout.
        """
        match = _STRIKE.fullmatch(text)
        if match is None:
            return None
        role, _, index = (match["role"] or "driver").partition(" ")
        return Strike(
            action="stop" if match["action"] == "stop" else "kill",
            role=role,
            index=int(index or 0),
            step=int(match["step"]),
            phase=match["phase"] or "rollout",
            after_s=float(match["after"] or 0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong by request.

    Example:
        Faults(dropped_tensors=("lm_head.weight",), keep_prefix_cache=False)
    """

    dropped_tensors: tuple[str, ...] = ()  # names, or patterns with *, that are never sent to the rollout workers
    keep_prefix_cache: bool = False  # rollout workers go on using KV of the old weights
    strikes: tuple[Strike, ...] = ()

    @staticmethod
    def parse(text: str) -> "Faults":
        """Read faults separated by semicolons, as in `EVENKEEL_FAULTS="drop tensor lm_head.weight; keep prefix cache"`.

        Raises:
            ValueError: a part is no known fault.

        Example:
            >>> Faults.parse("drop tensor model.layers.1.*; keep prefix cache").drops("model.layers.1.mlp.up.weight")
            True
        """
        dropped: list[str] = []
        strikes: list[Strike] = []
        keep = False
        for part in filter(None, (piece.strip() for piece in text.split(";"))):
            drop = _DROP.fullmatch(part)
            if drop:
                dropped.append(drop.group(1))
            elif strike := Strike.parse(part):
                strikes.append(strike)
            elif part == "keep prefix cache":
                keep = True
            else:
                raise ValueError(f"{part!r}: expected {_FORMS}")
        return Faults(dropped_tensors=tuple(dropped), keep_prefix_cache=keep, strikes=tuple(strikes))

    def drops(self, name: str) -> bool:
        """Whether the tensor of this name is kept from the rollout workers."""
        return any(_matches(name, pattern) for pattern in self.dropped_tensors)

    def without_effect(self, names: Iterable[str]) -> list[str]:
        """Patterns that match none of a model's tensors: most likely misspelt."""
        names = list(names)
        return [pattern for pattern in self.dropped_tensors if not any(_matches(name, pattern) for name in names)]


def _matches(name: str, pattern: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None
