"""The mismatch of each sequence in one compiled pass over its tokens.

NumPy would go over them some fifteen times. The loop below is written for LLVM to turn into vector instructions, which
it does only without calls and branches: hence its own exponential and its comparisons in place of min and max.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from llvmlite.binding import ffi
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from actors.logprob_pairs import CLIP

ROWS = 11
TOKENS_FOR_A_THREAD = 65_536  # 0.2 ms; to start a thread takes a tenth of that

# exp(x) = 2^k exp(r), k the integer nearest to x / ln 2 and r = x - k ln 2 (with ln 2 in two parts, so that no digit is
# lost). Both results follow from expm1(r) = r + r^2 q(r), q a polynomial that is exact to 4e-17 for |r| <= ln(2) / 2
# (interpolated at Chebyshev's nodes, from the constant term on).
LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
TO_INTEGER = 1.5 * 2.0**52  # added to a smaller number it leaves the nearest integer in the lowest bits
Q = (
    0.5000000000000001,
    0.16666666666666669,
    0.04166666666662413,
    0.008333333333330062,
    0.0013888888917213717,
    0.00019841269863053618,
    2.4801521295954376e-05,
    2.7557268459997064e-06,
    2.7620088445409746e-07,
    2.510038549551032e-08,
)
Q0, Q1, Q2, Q3, Q4, Q5, Q6, Q7, Q8, Q9 = Q
LARGEST_EXPONENT = 700.0  # of e; beyond it float64 would overflow
NEGLIGIBLE = 40.0  # exp(-40) is less than the last digit of 1
# Compiled into the loop, which is found again while this file stays as it is: another CLIP asks for a change here.
LARGEST_RATIO, SMALLEST_RATIO = math.exp(CLIP), math.exp(-CLIP)
LARGEST_EXCESS, SMALLEST_EXCESS = math.expm1(CLIP), math.expm1(-CLIP)


def sequence_sums(train: NDArray[Any], rollout: NDArray[Any], ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the mismatch metrics need of each sequence; below, d = a - b and rho = exp(d) with d clipped to +-20.

    Args:
        train: [T] log-probs a under the learner, float32 or float64.
        rollout: [T] b as the sampler reported them, of the same type.
        ends: [N] where each sequence ends; none is empty.

    Returns:
        [11, N] sums over the tokens of a, b, d, |d|, rho - 1 - d, |exp(a) - exp(b)|, rho^2 - 1, rho and rho^2, and the
        largest |d| and |exp(a) - exp(b)|. Where a log-prob is not finite, neither is the sum of its column.
    """
    sums = np.empty((ROWS, ends.size))
    shares = _shares(ends)

    def reduce(share: tuple[int, int]) -> None:
        loop = _compiled()
        try:
            loop(train, rollout, ends, sums, share)
        except OSError:  # no room to keep the machine code for the next process; this one has it
            loop(train, rollout, ends, sums, share)

    if len(shares) == 1:
        reduce(shares[0])
    else:
        with ThreadPoolExecutor(len(shares)) as threads:
            list(threads.map(reduce, shares))
    return sums


def _shares(ends: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last sequence of what each thread does: about as many tokens for all, and no thread for a few."""
    tokens = int(ends[-1]) if ends.size else 0
    threads = max(1, min(_threads(), tokens // TOKENS_FOR_A_THREAD))
    cuts = np.searchsorted(ends, np.linspace(0, tokens, threads + 1)[1:-1])
    bounds = [0, *(cuts + 1).tolist(), ends.size]
    return list(pairwise(bounds))


def _threads() -> int:
    """As many as this process may use: what PyTorch in it goes by, too."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() else len(os.sched_getaffinity(0))


def _keep_vllm_going() -> None:
    """Have llvmlite's library handle answer to the names of its functions only.

    It claims to have any attribute, `__dict__` included. vLLM 0.32 looks at that of every object in every module when a
    CPU engine comes up, and fails.
    """
    handle = type(ffi.lib)
    functions = handle.__getattr__

    def function(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return functions(self, name)

    handle.__getattr__ = function


_keep_vllm_going()


@cache
def _compiled() -> Callable[..., None]:
    """The loop, compiled at its first call for a type, or found beside this file from a process before."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return numba.njit(cache=True, **options)(_loop)  # type: ignore[no-any-return]
    except RuntimeError:  # there is no folder that one may write to
        return numba.njit(**options)(_loop)  # type: ignore[no-any-return]


def _loop(train: Any, rollout: Any, ends: Any, sums: Any, share: tuple[int, int]) -> None:
    first, last = share
    start = ends[first - 1] if first else 0
    for sequence in range(first, last):
        end = ends[sequence]
        a_column, b_column = train[start:end], rollout[start:end]
        start = end
        a_sum = b_sum = d_sum = abs_sum = k3_sum = gap_sum = chi2_sum = ratio_sum = square_sum = 0.0
        abs_max = gap_max = 0.0
        for token in range(a_column.size):
            a, b = np.float64(a_column[token]), np.float64(b_column[token])
            d = a - b
            ratio, excess = _exponentials(d)
            # |exp(a) - exp(b)| without cancellation: exp(b) |rho - 1|, or exp(a) where exp(b) is next to none
            beyond = d > NEGLIGIBLE
            weight, _ = _exponentials(a if beyond else b)
            gap = weight * (1.0 if beyond else abs(excess))
            ratio = _bounded(ratio, SMALLEST_RATIO, LARGEST_RATIO)
            excess = _bounded(excess, SMALLEST_EXCESS, LARGEST_EXCESS)
            a_sum = _plus(a_sum, a)
            b_sum = _plus(b_sum, b)
            d_sum = _plus(d_sum, d)
            abs_sum = _plus(abs_sum, abs(d))
            k3_sum = _plus(k3_sum, excess - d)
            gap_sum = _plus(gap_sum, gap)
            chi2_sum = _plus(chi2_sum, excess * ratio + excess)
            ratio_sum = _plus(ratio_sum, ratio)
            square_sum = _plus(square_sum, ratio * ratio)
            abs_max = _larger(abs(d), abs_max)
            gap_max = _larger(gap, gap_max)
        sums[0, sequence], sums[1, sequence], sums[2, sequence] = a_sum, b_sum, d_sum
        sums[3, sequence], sums[4, sequence], sums[5, sequence] = abs_sum, k3_sum, gap_sum
        sums[6, sequence], sums[7, sequence], sums[8, sequence] = chi2_sum, ratio_sum, square_sum
        sums[9, sequence], sums[10, sequence] = abs_max, gap_max


@numba.njit(inline="always", error_model="numpy")  # type: ignore[untyped-decorator]
def _exponentials(x: float) -> tuple[float, float]:
    """exp(x) and exp(x) - 1, to an ulp or two, of x bounded to what float64 can hold."""
    x = _bounded(x, -LARGEST_EXPONENT, LARGEST_EXPONENT)
    shifted = x * LOG2_E + TO_INTEGER
    k = shifted - TO_INTEGER
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    power = _float_of((_bits_of(shifted) + 1023) << 52)  # 2^k: k + 1023 where float64 has its exponent
    q = (((((((((Q9 * r + Q8) * r + Q7) * r + Q6) * r + Q5) * r + Q4) * r + Q3) * r + Q2) * r + Q1) * r) + Q0
    part = power * (q * (r * r) + r)
    return part + power, part + (power - 1.0)


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _bounded(x: float, low: float, high: float) -> float:
    x = x if x > low else low
    return x if x < high else high


@intrinsic  # type: ignore[untyped-decorator]
def _plus(context: Any, x: Any, y: Any) -> Any:
    """x + y, free to be added in another order: a sum may then be made in the lanes of a vector."""
    del context, x, y
    flags = ("reassoc", "nsz", "contract")
    return types.float64(types.float64, types.float64), lambda _, ir_, __, args: ir_.fadd(*args, flags=flags)


@intrinsic  # type: ignore[untyped-decorator]
def _larger(context: Any, x: Any, y: Any) -> Any:
    """The larger of two numbers, neither of them NaN, in the form that LLVM knows as a maximum over a loop."""
    del context, x, y

    def generate(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args, flags=("fast",)), *args, flags=("fast",))

    return types.float64(types.float64, types.float64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _bits_of(context: Any, x: Any) -> Any:
    """The 64 bits of a float64."""
    del context, x
    return types.int64(types.float64), lambda _, builder, __, args: builder.bitcast(args[0], ir.IntType(64))


@intrinsic  # type: ignore[untyped-decorator]
def _float_of(context: Any, x: Any) -> Any:
    """The float64 that 64 bits are."""
    del context, x
    return types.float64(types.int64), lambda _, builder, __, args: builder.bitcast(args[0], ir.DoubleType())
