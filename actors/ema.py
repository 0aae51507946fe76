"""The exponential moving average that smooths every signal of the house."""


class Ema:
    """The first value as it is, then x = weight * value + (1 - weight) * x. `value` is its whole state.

    >>> ema = Ema(0.5)
    >>> ema.value, ema.update(4.0), ema.update(2.0)
    (None, 4.0, 3.0)
    """

    __slots__ = ("_weight", "value")

    def __init__(self, weight: float) -> None:
        self._weight = weight  # of the newest value, in (0, 1]
        self.value: float | None = None

    def update(self, value: float) -> float:
        """Take in a finite value; returns the new average."""
        self.value = value if self.value is None else self._weight * value + (1 - self._weight) * self.value
        return self.value
