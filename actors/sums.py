"""Statistics of parts that merge exactly into those of the whole: sums, counts and extremes, never means."""

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any, Self

# How the parts of a split become the whole, field by field: `tokens: int = field(default=0, metadata=SUM)`.
SUM: dict[str, Any] = {"merge": sum}
MAX: dict[str, Any] = {"merge": max}
MIN: dict[str, Any] = {"merge": min}
NESTED: dict[str, Any] = {"merge": lambda parts: parts[0].merge(*parts[1:])}  # of fields that are Sums themselves


class Sums:
    """Base of frozen dataclasses whose fields say how they merge; an instance made of the defaults is that of nothing.

    >>> from actors.corrections import CorrectionSums
    >>> CorrectionSums(tokens=2, weight_max=0.5).merge(CorrectionSums(tokens=3, weight_max=1.5)).tokens
    5
    """

    __slots__ = ()

    def merge(self, *others: Self) -> Self:
        """The statistics of all parts together; the order matters to float64 rounding only."""
        kind: Any = type(self)
        rules, values_of = _rules(kind)
        columns = zip(*(values_of(part) for part in (self, *others)), strict=True)
        merged: Self = _made(kind, tuple(rule(column) for rule, column in zip(rules, columns, strict=True)))
        return merged

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as bare values: many ranks report at every step, and dataclasses pickle each field by name."""
        kind: Any = type(self)
        return _made, (kind, _rules(kind)[1](self))


@cache
def _rules(of: type[Any]) -> tuple[tuple[Callable[[Any], Any], ...], Callable[[Any], tuple[Any, ...]]]:
    """How each field merges, and what gives the values of all fields."""
    found = fields(of)  # every class that inherits Sums is a dataclass
    names = [item.name for item in found]
    values_of = attrgetter(*names) if len(names) > 1 else lambda sums: tuple(getattr(sums, name) for name in names)
    return tuple(item.metadata["merge"] for item in found), values_of


@cache
def _setters(of: type[Any]) -> tuple[Callable[[Any, Any], None], ...]:
    """What sets each field of a fresh instance, frozen as it is."""
    return tuple(getattr(of, item.name).__set__ for item in fields(of))


def _made(of: Any, values: tuple[Any, ...]) -> Any:
    """The instance with these values, field by field."""
    instance = object.__new__(of)
    for setter, value in zip(_setters(of), values, strict=True):
        setter(instance, value)
    return instance
