"""Every recorded vector, through the tagged union as an experiment file would go."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from actors.lr_policies import LrDecision, PolicyConfig, SchedulerConfig

VECTORS = sorted((Path(__file__).parents[2] / "data" / "vectors").glob("lr_*.json"))
SCHEDULER: TypeAdapter[PolicyConfig] = TypeAdapter(SchedulerConfig)


def test_there_are_vectors_to_meet() -> None:
    assert len(VECTORS) == 13


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_recorded_vectors_are_met(path: Path, replay: Callable[..., list[LrDecision]]) -> None:
    vector = json.loads(path.read_text())
    decisions = replay(SCHEDULER.validate_python(vector["policy"]), [(row["step"], row) for row in vector["trace"]])
    assert len(decisions) == len(vector["expected"])
    for decision, expected in zip(decisions, vector["expected"], strict=True):
        assert decision.step == expected["step"]
        if expected["lr"] is not None:
            assert decision.lr == pytest.approx(expected["lr"], rel=1e-9, abs=0)
        if expected["events"] is not None:
            assert list(decision.events) == expected["events"]
