r"""Answers as values: text that is safe to read becomes sympy, and two values are compared kind by kind.

math-verify's parser reads the LaTeX. Its own comparison is not used, because it is made to be generous: it rounds to
six decimals, so 0.0000001 is 0; a pair, an open interval and a set of two are one; `5m` is `5`, since m is a unit; and
`5 6` is 11. Here decimals are exact, kinds are distinct, and what is ambiguous is not read at all.
"""

import re
from functools import lru_cache
from typing import Any

from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex  # type: ignore[import-untyped]
from latex2sympy2_extended.latex2sympy2 import ConversionConfig  # type: ignore[import-untyped]
from math_verify.grader import should_treat_as_complex  # type: ignore[import-untyped]
from sympy import Float, MatrixBase, Rational, nan, zoo  # type: ignore[import-untyped]
from sympy.logic.boolalg import BooleanAtom  # type: ignore[import-untyped]

LONGEST = 500  # characters of an answer that is read as mathematics
LONGEST_NUMBER = 4000  # Python converts no longer ones
DEEPEST = 8  # brackets in brackets; the parser's time doubles with each from about 15 on
MOST_DIGITS = 2000  # of a number that is worked out
LARGEST_FACTORIAL = 500

NUMBER = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)", re.ASCII)
FRACTION = re.compile(r"([+-]?)(?:\\frac ?\{ ?(\d+) ?\} ?\{ ?(\d+) ?\}|(\d+) ?/ ?(\d+))", re.ASCII)
CHARACTERS = re.compile(r"[A-Za-z0-9 +\-*/^_()\[\]{},;=<>|!\\.&]*")
COMMAND = re.compile(r"\\([A-Za-z]+)")
COMMANDS = re.compile(
    r"frac|sqrt|pi|infty|cdot|times|div|pm|(arc)?(sin|cos|tan)|cot|sec|csc|log|ln|exp|cup|cap|emptyset|leq?|geq?|lt|gt"
    r"|begin|end|[pb]?matrix|mathbb|binom|alpha|beta|gamma|delta|theta|lambda|mu|phi|omega|sigma|rho"
)
WORD = re.compile(r"[A-Za-z]{3,}")
# Readings differ, or the parser reads something that was not meant.
AMBIGUOUS = re.compile(
    r"\d +\d|[\d)}] *_|\d[A-Za-z]+\d|\^ *\w+ *\^|\.\.|\d\.(?!\d)|\\frac *\d *\d\d|\\sqrt *\d\d|\+\+|--|\+-|-\+|\*\*"
    r"|\\binom.*(?:\d{4}|!)"
)
LATEX = NormalizationConfig(basic_latex=False, units=False, malformed_operators=True, nits=False, boxed="none")
AS_WRITTEN = ConversionConfig(lowercase_symbols=False)


@lru_cache(maxsize=4096)
def read_value(text: str) -> Any | None:
    r"""The sympy value of a normalised answer, exact; None where it is not mathematics or not safely read.

    >>> read_value(r"\frac{3}{4}"), read_value("0.75"), read_value("10^{10^{10}}")
    (3/4, 3/4, None)
    """
    if NUMBER.fullmatch(text) or FRACTION.fullmatch(text):
        return _read_rational(text)
    if not _is_readable(text):
        return None
    try:
        value: Any = latex2sympy(
            normalize_latex(text, LATEX),
            is_real=not should_treat_as_complex(text),
            normalization_config=None,
            conversion_config=AS_WRITTEN,
        )
        value = value.as_immutable() if isinstance(value, MatrixBase) else value
        if _digits(value) > MOST_DIGITS:
            return None
        value = value.xreplace({number: Rational(str(number)) for number in value.atoms(Float)}).doit()
        return None if value.has(nan, zoo) or isinstance(value, BooleanAtom) else value
    except MemoryError:
        raise
    except Exception:  # the parser raises a bare Exception, and sympy of every kind, at what they cannot read
        return None


def _read_rational(text: str) -> Any | None:
    if len(text) > LONGEST_NUMBER:
        return None
    if fraction := FRACTION.fullmatch(text):
        sign, *parts = fraction.groups()
        over, under = (int(part) for part in parts if part is not None)
        return Rational(-over if sign == "-" else over, under) if under else None
    return Rational(text.rstrip("."))


def _is_readable(text: str) -> bool:
    depth = deepest = 0
    for character in text[: LONGEST + 1]:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    letters = COMMAND.sub(" ", re.sub(r"\\(?:begin|end) ?\{[a-z]+\}", " ", text))
    return (
        0 < len(text) <= LONGEST
        and deepest <= DEEPEST
        and CHARACTERS.fullmatch(text) is not None
        and all(COMMANDS.fullmatch(command) for command in COMMAND.findall(text))
        and all(word == "sqrt" for word in WORD.findall(letters))
        and AMBIGUOUS.search(text) is None
    )


def _digits(value: Any) -> float:
    """An upper bound, not a tight one, of the decimal digits that working the value out can take."""
    if value.is_Atom:
        return 1 + (max(abs(value.p), value.q).bit_length() * 0.302 if value.is_Rational else 0)
    name = type(value).__name__
    parts = [_digits(part) for part in (value.flat() if isinstance(value, MatrixBase) else value.args)]
    if name in {"factorial", "binomial"}:
        small = all(part.is_Integer and abs(part) <= LARGEST_FACTORIAL for part in value.args)
        return 3.0 * LARGEST_FACTORIAL if small else float("inf")
    if name in {"Pow", "exp"}:
        exponent = value.args[-1]
        times = abs(int(exponent)) + 1 if exponent.is_Rational else 10.0 ** min(parts[-1], 9)
        return max(parts[0], 1.0) * times + parts[-1]
    return float(sum(parts))
