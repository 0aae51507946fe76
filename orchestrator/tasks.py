"""Problems that are made up: endless, seeded, randomly accessible streams with a checkable answer."""

import random
from hashlib import blake2b

from orchestrator.problems.problem import Problem

HELD_OUT_ONE_IN = 8
MIN_DIGITS = 2


class ArithmeticTask:
    """Sums of two numbers of the same number of digits.

    Training and validation problems are disjoint by construction: whether a sum is held out depends on a hash of its
    operands alone, whatever their order and whatever the seed. The validation stream does not depend on the seed
    either, so runs with different seeds are evaluated on the same problems.

    Example:
        >>> ArithmeticTask(digits=3, seed=0).problem(7) == ArithmeticTask(digits=3, seed=0).problem(7)
        True
    """

    def __init__(self, digits: int, seed: int) -> None:
        """Define the stream.

        Args:
            digits: Number of decimal digits of both operands, at least 2.
            seed: Seed of the training stream.

        Raises:
            ValueError: When `digits` is below 2; one-digit sums are too few to hold some out.
        """
        if digits < MIN_DIGITS:
            raise ValueError(f"digits: got {digits}, expected at least {MIN_DIGITS}")
        self._digits = digits
        self._seed = seed

    def problem(self, index: int) -> Problem:
        """Return training problem `index` (from 0), the same one at every call."""
        return self._draw(f"train/{self._seed}/{index}", held_out=False)

    def validation(self, index: int) -> Problem:
        """Return held-out problem `index` (from 0), the same one at every call and for every seed."""
        return self._draw(f"validation/{index}", held_out=True)

    def _draw(self, name: str, *, held_out: bool) -> Problem:
        rng = random.Random(name)  # a string seed is hashed by Python with SHA-512: stable across processes
        low, high = 10 ** (self._digits - 1), 10**self._digits
        while True:
            left, right = rng.randrange(low, high), rng.randrange(low, high)
            if is_held_out(left, right) == held_out:
                return Problem(prompt=f"{left}+{right}=", answer=str(left + right))


def is_held_out(left: int, right: int) -> bool:
    """Tell whether the sum of these operands, in either order, belongs to validation."""
    low, high = sorted((left, right))
    digest = blake2b(f"{low}+{high}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_ONE_IN == 0
