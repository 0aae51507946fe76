"""JSON lines: an object a line."""

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic_core import from_json

from orchestrator.config_errors import ConfigError


def json_objects(lines: Iterable[bytes], file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of each line, counted from 1; lines of nothing but white space are passed over.

    >>> list(json_objects([b'{"step": 0}', b"", b'{"step": 1}'], "metrics.jsonl"))
    [(1, {'step': 0}), (3, {'step': 1})]

    Args:
        lines: with their line ends; a byte order mark may stand before the first.
        file: its name, for messages.

    Raises:
        ConfigError: a line is no JSON object; with its number.
    """
    for number, raw in enumerate(lines, start=1):
        line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        try:
            row = from_json(line)  # several times as fast as json, which would take longer than all the rest
        except ValueError as error:
            if not line.strip():
                continue
            why = re.sub(r" at line \d+ column \d+$", "", str(error))
            cut = "" if line.endswith(b"\n") else "; the file ends within this line"
            text = line.decode(errors="replace").strip()
            raise ConfigError(file, f"line {number}", text, f"a JSON object ({why}{cut})") from None
        if not isinstance(row, dict):
            raise ConfigError(file, f"line {number}", row, "a JSON object")
        yield number, row
