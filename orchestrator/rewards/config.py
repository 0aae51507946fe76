"""What an experiment file says about rewards: kind, shaping, and the limits of the processes that score."""

import os
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from actors.settings import Count, Settings

MOST_WORKERS = 8  # by default
FUNCTION_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"a regular expression ({error})") from None
    return pattern


RegexPattern = Annotated[str, Field(min_length=1), AfterValidator(_compiles)]


class ArithmeticReward(Settings):
    """`kind: arithmetic`: 1 when the text after the last `#` is the answer, character for character."""

    kind: Literal["arithmetic"] = "arithmetic"


class ExactReward(Settings):
    """`kind: exact`: 1 when the whole response is the answer, white space around either aside."""

    kind: Literal["exact"] = "exact"
    ignore_case: bool = False


class RegexReward(Settings):
    r"""`kind: regex`: 1 when the last match of the pattern is the answer, white space around either aside.

    Example:
        >>> RegexReward(pattern=r"answer: (\d+)").kind
        'regex'
    """

    kind: Literal["regex"] = "regex"
    pattern: RegexPattern = Field(description="Python syntax; group 1 is the answer, without groups the whole match")


class MathReward(Settings):
    r"""`kind: math`: 1 when the last `\boxed{...}` of the response equals the answer as mathematics."""

    kind: Literal["math"] = "math"


class PythonReward(Settings):
    """`kind: python`: what a function of the user's returns.

    It is called as `function(response: str, answer: str, source: str, extra: dict)` and returns a finite number.

    Example:
        >>> PythonReward(function="my_rewards:code_quality").function
        'my_rewards:code_quality'
    """

    kind: Literal["python"] = "python"
    function: str = Field(pattern=FUNCTION_PATTERN, description="module:function, importable from where one starts")


RewardConfig = Annotated[
    ArithmeticReward | ExactReward | RegexReward | MathReward | PythonReward, Field(discriminator="kind")
]


class OverlongConfig(Settings):
    """Soft penalty for length (DAPO, arXiv 2503.14476, equation 13).

    Example:
        >>> OverlongConfig(buffer=4096).penalty
        1.0
    """

    buffer: Count = Field(description="tokens before max_response_tokens in which the penalty grows")
    penalty: float = Field(1.0, ge=0, description="what a response of max_response_tokens loses")


class FormatConfig(Settings):
    r"""A bonus for responses in which a pattern is found.

    Example:
        >>> FormatConfig(pattern=r"^<think>.*</think>", bonus=0.1).bonus
        0.1
    """

    pattern: RegexPattern = Field(description="Python syntax, searched for anywhere in the response")
    bonus: float


class LimitsConfig(Settings):
    """What scoring one response may cost, and how many processes do it.

    Example:
        >>> LimitsConfig(workers=2).num_workers()
        2
    """

    time_limit_s: float = Field(10.0, ge=0.1, le=3600, description="wall-clock seconds a response may take")
    memory_mib: Annotated[int, Field(ge=256, le=2**22)] = Field(2048, description="address space of a process")
    workers: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None, description="processes; null is one per core, 8 at most"
    )

    def num_workers(self) -> int:
        """The number of processes on this machine."""
        return self.workers or min(len(os.sched_getaffinity(0)), MOST_WORKERS)
