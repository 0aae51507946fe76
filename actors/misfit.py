"""A value that is well by itself and does not go with the other fields of its block."""

from typing import Any


class Misfit(ValueError):
    """`field`, named within its block, is the one to change.

    Example:
        >>> str(Misfit("lo", 5.0, "at most hi, which is 1"))
        'lo at most hi, which is 1'
    """

    def __init__(self, field: str, value: Any, expected: str) -> None:
        super().__init__(f"{field} {expected}")
        self.field, self.value, self.expected = field, value, expected
