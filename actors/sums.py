"""Statistics of parts that merge exactly into those of the whole: sums, counts and extremes, never means."""

from dataclasses import fields
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
        parts = (self, *others)
        merged = {
            item.name: item.metadata["merge"]([getattr(part, item.name) for part in parts])
            for item in fields(self)  # type: ignore[arg-type]  # every class that inherits this is a dataclass
        }
        return type(self)(**merged)
