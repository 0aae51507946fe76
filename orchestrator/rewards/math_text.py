r"""Answers as text: where a response has its answer, and how spellings of one answer become one spelling."""

import logging
import re
from dataclasses import dataclass
from functools import lru_cache

from math_verify import parse  # type: ignore[import-untyped]

EXAMINED = 20_000  # characters at the end of a response in which a box is looked for
TAIL = 1_000  # characters at its end in which an answer without a box is looked for
DEEPEST_BOX = 8  # boxes in boxes
BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")

# math-verify would warn that its timeouts are off; the pool's limits are in their place.
logging.getLogger("math_verify").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True, kw_only=True)
class MathText:
    """An answer in the one spelling that is compared.

    Example:
        MathText(body="12", unit="meter2")  # of "12\\,\\text{square meters}."
    """

    body: str  # empty: no answer
    unit: str | None = None  # "percent" is one


# What is written differently and means the same; then what only looks.
SIGNS = str.maketrans(
    {"\u2212": "-", "\u2013": "-", "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u00f7": r"\div "}
    | {"\u03c0": r"\pi ", "\u221a": r"\sqrt ", "\u221e": r"\infty ", "\u2264": r"\le ", "\u2265": r"\ge "}
    | {"\u222a": r"\cup ", "\u2229": r"\cap ", "\u2205": r"\emptyset ", "\u00b0": r"^\circ ", "\u00a0": " "}
    | {"\u202f": " ", "\u2009": " ", "\u20ac": "", "\u00a3": ""}
)
SPELLINGS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\[()\[\]](?![A-Za-z\d\\])|^\\[(\[]|\\?\$|\\displaystyle|\\!|\*\*", ""),
        (r"\\(?:left|right|big|Big)(?![A-Za-z])", ""),
        (r"\\(?:dfrac|tfrac|cfrac)", r"\\frac"),
        (r"\\(?:text(?:bf|it|rm|normal)|math(?:rm|bf|it|sf)|mbox|operatorname)(?![A-Za-z])", r"\\text"),
        (r"\{,\}", ","),
        (r"(?<!\\)\\[,;: ]|~|\\q?quad|\s+", " "),
        (r"\s*,?\s*(?:\\text\s*\{\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*", ", "),
        (r"(?:\^\s*\{?\s*\\circ\s*\}?|\\degree)", r"\\text{degree}"),
        (r"\\%|%", r"\\text{percent}"),
        (r"\\(leq?|geq?)(?![a-z])", r"\\\1 "),
    ]
]
THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:[ ,]\d{3})+(?:\.\d+)?")
FINAL_STOP = re.compile(r"(?<!\.)[.,;:]$")  # but 0.999... is not 0.999
MIXED = re.compile(r"(-?)(\d+) (\d+)/(\d+)")
ONLY_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
ONLY_BRACES = re.compile(r"\{([^{},\\]*)\}")
UNIT = re.compile(
    r"(?P<body>.*[\d})]) ?(?:\\text ?\{ ?(?P<text>[A-Za-z ]+?)\.? ?\}|(?P<word>[A-Za-z]{2,}(?: [A-Za-z]{2,})?))"
    r"(?P<power>\^(?:2|3|\{2\}|\{3\}))?"
)
UNITS = {
    name: unit
    for unit, names in {
        "percent": "percent",
        "degree": "degree deg",
        "dollar": "dollar USD",
        "cent": "cent",
        "euro": "euro",
        "millimeter": "millimeter millimetre mm",
        "centimeter": "centimeter centimetre cm",
        "meter": "meter metre m",
        "kilometer": "kilometer kilometre km",
        "inch": "inch inche in",
        "foot": "foot feet ft",
        "yard": "yard yd",
        "mile": "mile mi",
        "gram": "gram g",
        "kilogram": "kilogram kg",
        "pound": "pound lb",
        "ounce": "ounce oz",
        "second": "second sec s",
        "minute": "minute min",
        "hour": "hour hr h",
        "day": "day",
        "week": "week",
        "month": "month",
        "year": "year",
        "liter": "liter litre L",
        "gallon": "gallon",
        "mph": "mph",
        "unit": "unit",
    }.items()
    for name in names.split()
}


def boxed_answer(response: str) -> str | None:
    r"""What stands in the last outermost `\boxed{...}` of a response, boxes inside it unpacked.

    Only the last 20,000 characters are looked at. Linear in them.

    >>> boxed_answer(r"First \boxed{4}, but no: \boxed{\boxed{5}}.")
    '5'

    Returns:
        None without a box; the empty text when the last box is empty, never closed, or holds more than eight others.
    """
    text = response[-EXAMINED:]
    content, place = None, 0
    while opening := BOX.search(text, place):
        closing = _closing(text, opening.end())
        if closing is None:
            return ""
        content, place = text[opening.end() : closing], closing + 1
    for _ in range(DEEPEST_BOX):
        inner = BOX.search(content or "")
        if content is None or inner is None:
            return content
        closing = _closing(content, inner.end())
        if closing is None:
            return ""
        content = content[: inner.start()] + content[inner.end() : closing] + content[closing + 1 :]
    return ""


def _closing(text: str, start: int) -> int | None:
    """Where the brace closes that was opened just before `start`."""
    depth, place = 1, start
    while place < len(text):
        if text[place] == "\\":
            place += 1  # the next character is part of a command
        elif text[place] == "{":
            depth += 1
        elif text[place] == "}":
            depth -= 1
            if depth == 0:
                return place
        place += 1
    return None


def plain_answer(response: str) -> str:
    """The final expression of a response without a box, as math-verify finds it in the last 1,000 characters."""
    tail = response[-TAIL:]
    if len(response) > TAIL:
        tail = tail.partition(" ")[2]  # the first piece may be the rest of a number
    found = parse(tail, fallback_mode="first_match", extraction_mode="first_match", parsing_timeout=None)
    return found[-1] if found and isinstance(found[-1], str) else ""


@lru_cache(maxsize=4096)
def normalized(answer: str) -> MathText:
    r"""An answer without what does not change its value: dollars, spacing commands, separators, the final stop.

    Units of a short list of measures are told apart from the body, other words are not.

    >>> normalized(r"$1,250\,\text{cm}^2$.")
    MathText(body='1250', unit='centimeter2')
    """
    text = answer.translate(SIGNS)
    for pattern, replacement in SPELLINGS:
        text = pattern.sub(replacement, text)
    text = FINAL_STOP.sub("", text.strip())
    body, unit = _without_unit(text)
    for wrapped in (ONLY_TEXT, ONLY_BRACES):
        if inner := wrapped.fullmatch(body):
            body = inner.group(1).strip().rstrip(".")
    if THOUSANDS.fullmatch(body):
        body = body.replace(",", "").replace(" ", "")
    if mixed := MIXED.fullmatch(body):
        sign, whole, over, under = mixed.groups()
        body = rf"{sign}({whole}+\frac{{{over}}}{{{under}}})"
    return MathText(body=body, unit=unit)


def _without_unit(text: str) -> tuple[str, str | None]:
    match = UNIT.fullmatch(text)
    if match is None:
        return text, None
    words = (match["text"] or match["word"]).split()
    power = (match["power"] or "").strip("^{}")
    if len(words) > 1 and words[0] in {"square", "sq", "cubic"} and not power:
        power = "3" if words.pop(0) == "cubic" else "2"
    name = words[0] if len(words) == 1 else ""
    unit = UNITS.get(name) or UNITS.get(name.removesuffix("s"))
    return (match["body"], unit + power) if unit else (text, None)
