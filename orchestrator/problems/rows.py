"""Rows checked: what the cells of a row must hold, and the problem that they make."""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.problems.blocks import Cells
from orchestrator.problems.keys import Keys
from orchestrator.problems.problem import Message, Problem

PROMPT = "a text that is not blank, or a list of messages with role and content"
ANSWER = "an answer: a text that is not blank, a number, true or false"


class RowReader:
    """Makes problems of the rows of one file.

    reader = RowReader("train.parquet", keys, answer_pattern=None)
    reader.problem(block.cells(5), block.place(5))
    """

    def __init__(self, file: str, keys: Keys, answer_pattern: str | None) -> None:
        """Define the reader.

        Args:
            file: its name in messages.
            keys: likewise.
            answer_pattern: regular expression that finds the answer in a longer text.
        """
        self._file = file
        self._prompt, self._answer, self._source, self._extra = (
            ".".join(path or ()) for path in (keys.prompt, keys.answer, keys.source, keys.extra)
        )
        self._pattern = None if answer_pattern is None else re.compile(answer_pattern)

    def problem(self, cells: Cells, place: str) -> Problem:
        """The problem of a row.

        Args:
            cells: of the row.
            place: what messages call it.

        Raises:
            ConfigError: a cell is missing, blank or of another type.
        """
        return Problem(
            prompt=self._checked_prompt(cells.prompt, f"{place}: {self._prompt}"),
            answer=self._checked_answer(cells.answer, f"{place}: {self._answer}"),
            source=self._checked_source(cells.source, f"{place}: {self._source}"),
            extra=self._checked_extra(cells.extra, f"{place}: {self._extra}"),
        )

    def _checked_prompt(self, value: Any, place: str) -> str | tuple[Message, ...]:
        if isinstance(value, str) and value.strip():
            return value
        if not isinstance(value, list) or not value:
            raise self._wrong(place, value, PROMPT)
        messages = tuple(self._message(message, f"{place}[{i}]") for i, message in enumerate(value))
        if not any(message.content.strip() for message in messages):
            raise self._wrong(place, value, PROMPT)
        return messages

    def _message(self, value: Any, place: str) -> Message:
        if not isinstance(value, Mapping):
            raise self._wrong(place, value, "a message with role and content")
        role, content = value.get("role", MISSING), value.get("content", MISSING)
        if not isinstance(role, str) or not role:
            raise self._wrong(f"{place}.role", role, "a text that is not empty")
        if not isinstance(content, str):
            raise self._wrong(f"{place}.content", content, "a text")
        return Message(role=role, content=content)

    def _checked_answer(self, value: Any, place: str) -> str:
        text = canonical(value)
        if not text:
            raise self._wrong(place, value, ANSWER)
        if self._pattern is None:
            return text
        last = None
        for match in self._pattern.finditer(text):
            last = match
        answer = (last.group(1 if self._pattern.groups else 0) or "").strip() if last else ""
        if not answer:
            expected = f"a text in which answer_pattern {self._pattern.pattern!r} finds an answer"
            raise self._wrong(place, value, expected)
        return answer

    def _checked_source(self, value: Any, place: str) -> str:
        if value is None or value is MISSING:
            return ""
        if not isinstance(value, str):
            raise self._wrong(place, value, "a text or null")
        return value

    def _checked_extra(self, value: Any, place: str) -> Mapping[str, Any]:
        if value is None or value is MISSING:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(place, value, "a struct, an object or null")
        return value

    def _wrong(self, place: str, value: Any, expected: str) -> ConfigError:
        return ConfigError(self._file, place, value, expected + ("; it is missing" if value is MISSING else ""))


def canonical(value: Any) -> str:
    """The text of an answer, without white space around it; "" for what can be none.

    >>> canonical(" 18 "), canonical(18.0), canonical(1e-7), canonical(True), canonical(None)
    ('18', '18', '0.0000001', 'true', '')
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        return ""
    text = format(value if isinstance(value, Decimal) else Decimal(repr(value)), "f")
    return "0" if not text.strip("-0.") else text.rstrip("0").rstrip(".") if "." in text else text
