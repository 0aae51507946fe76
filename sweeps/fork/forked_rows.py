"""Recorded metrics, as the run would have written them under another policy that decided the same rates."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from actors.lr_policies import LrDecision
from orchestrator.config_errors import ConfigError
from orchestrator.json_lines import json_objects
from orchestrator.run.metrics_file import EVENT
from sweeps.fork.divergence import LR


def whole_lines(content: bytes) -> list[bytes]:
    """The lines of a metrics file without their ends, and without a last one that is cut off or being written."""
    return content.split(b"\n")[:-1]


def rows_of(lines: Iterable[bytes], file: str) -> Iterator[dict[str, Any]]:
    """The rows of steps 0, 1, 2 and so on; they end before the first line that is not the next one's."""
    expected = 0
    try:
        for _, row in json_objects(lines, file):
            if type(row.get("step")) is not int or row["step"] != expected:
                return
            yield row
            expected += 1
    except ConfigError:
        return


def rewritten(rows: Iterable[Mapping[str, Any]], decisions: Iterable[LrDecision]) -> bytes:
    """The rows as a metrics file, with these decisions' rates and events in place of those that are there.

    >>> row = {"step": 0, "scheduler/lr": 1e-06, "scheduler/event/surge": 1.0, "time/step": 2.5}
    >>> rewritten([row], [LrDecision(step=0, lr=1e-06, events=())])
    b'{"step": 0, "scheduler/lr": 1e-06, "time/step": 2.5}\\n'
    """
    lines = [json.dumps(_decided(row, decision)) for row, decision in zip(rows, decisions, strict=True)]
    return "".join(f"{line}\n" for line in lines).encode()


def _decided(row: Mapping[str, Any], decision: LrDecision) -> dict[str, Any]:
    decided: dict[str, Any] = {}
    for key, value in row.items():
        if key == LR:
            decided |= {LR: decision.lr, **{f"{EVENT}{event}": 1.0 for event in decision.events}}
        elif not key.startswith(EVENT):
            decided[key] = value
    return decided
