"""Faults on purpose: the switch that shows a safeguard at work."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_DROP = re.compile(r"drop tensor (\S+)")
_FORMS = "'drop tensor NAME' (* matches any text) or 'keep prefix cache'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong by request.

    Example:
        Faults(dropped_tensors=("lm_head.weight",), keep_prefix_cache=False)
    """

    dropped_tensors: tuple[str, ...] = ()  # names, or patterns with *, that are never sent to the rollout workers
    keep_prefix_cache: bool = False  # rollout workers go on using KV of the old weights

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
        keep = False
        for part in filter(None, (piece.strip() for piece in text.split(";"))):
            drop = _DROP.fullmatch(part)
            if drop:
                dropped.append(drop.group(1))
            elif part == "keep prefix cache":
                keep = True
            else:
                raise ValueError(f"{part!r}: expected {_FORMS}")
        return Faults(dropped_tensors=tuple(dropped), keep_prefix_cache=keep)

    def drops(self, name: str) -> bool:
        """Whether the tensor of this name is kept from the rollout workers."""
        return any(_matches(name, pattern) for pattern in self.dropped_tensors)

    def without_effect(self, names: Iterable[str]) -> list[str]:
        """Patterns that match none of a model's tensors: most likely misspelt."""
        names = list(names)
        return [pattern for pattern in self.dropped_tensors if not any(_matches(name, pattern) for name in names)]


def _matches(name: str, pattern: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None
