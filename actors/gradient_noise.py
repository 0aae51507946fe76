"""The two-halves estimate of how much of a gradient is signal and how much is noise (docs/method.md section 3)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.ema import Ema
from actors.sums import SUM, Sums

SMOOTHING = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfSums(Sums):
    """What the estimate needs of a step's gradient G = G1 + G2, as sums over elements and sequences.

    G1 is what half 1, the prompts at even places of the batch, contributes, G2 the rest. A rank reports the gradient
    elements it holds and the sequences it was given; all ranks together give the whole.

    Example:
        HalfSums(first_square=0.31, second_square=0.29, product=0.11, first_tokens=1510, first_sequences=64)
    """

    first_square: float = field(default=0.0, metadata=SUM)  # <G1, G1>
    second_square: float = field(default=0.0, metadata=SUM)  # <G2, G2>
    product: float = field(default=0.0, metadata=SUM)  # <G1, G2>
    first_tokens: int = field(default=0, metadata=SUM)  # of half 1 that the loss's denominator counts
    first_sequences: int = field(default=0, metadata=SUM)  # likewise


def two_halves(sums: HalfSums, shares: tuple[float, float], num_prompts: int) -> tuple[float, float] | None:
    """Signal and noise of one step; None when there is no second half to compare with.

    With g_k = G_k / share_k, the gradient that half k gives alone: signal = <g1, g2> estimates the squared norm of the
    true gradient and may be negative; noise = B1 B2 / B * |g1 - g2|^2 estimates the trace of the covariance of the
    prompts' gradients (McCandlish et al. 2018).

    Args:
        sums: of all ranks together.
        shares: of the loss's denominator that come from half 1 and from half 2.
        num_prompts: B in both halves together; half 1 has the odd one.

    Example, of g1 = 3 and g2 = 1 in one dimension, four prompts, equal shares:
        >>> two_halves(HalfSums(first_square=2.25, second_square=0.25, product=0.75), (0.5, 0.5), num_prompts=4)
        (3.0, 4.0)
    """
    one, two = shares
    if num_prompts < 2 or one <= 0 or two <= 0:  # noqa: PLR2004 - two halves
        return None
    signal = sums.product / (one * two)
    distance = sums.first_square / one**2 - 2 * signal + sums.second_square / two**2
    first, second = (num_prompts + 1) // 2, num_prompts // 2
    return signal, first * second / num_prompts * max(0.0, distance)


class NoiseScale:
    """EMA(noise) / EMA(signal), each smoothed on its own: about how many prompts a batch needs to be worth its steps.

    >>> scale = NoiseScale()
    >>> scale.observe(signal=2.0, noise=6.0), scale.observe(signal=-100.0, noise=6.0)
    (3.0, None)
    """

    def __init__(self) -> None:
        self._signal = Ema(SMOOTHING)
        self._noise = Ema(SMOOTHING)

    def observe(self, signal: float, noise: float) -> float | None:
        """Take in one estimate; None while the smoothed signal is not positive."""
        signal, noise = self._signal.update(signal), self._noise.update(noise)
        return noise / signal if signal > 0 else None

    def state_dict(self) -> dict[str, Any]:
        """The whole state in JSON types."""
        return {"signal": self._signal.value, "noise": self._noise.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._signal.value, self._noise.value = state["signal"], state["noise"]
