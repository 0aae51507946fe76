"""What is remembered of a run and of each of its steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One step, as it goes to the metrics file, to MLflow and to the screen.

    Example:
        StepRecord(step=41, time_ms=1764000000000, metrics={"reward/mean": 0.5, "scheduler/lr": 5e-07},
                   events=("decay",))
    """

    step: int
    time_ms: int  # when it ended, since the epoch
    metrics: dict[str, float]
    events: tuple[str, ...]  # of the learning-rate policy


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCard:
    """What MLflow is told of a run at its beginning.

    Example:
        RunCard(uid="9f2c6f0e5b7a4d0c8e1a3b5d7f901234", experiment="mismatch", name="demo/decay/seed-0",
                tags={"arm": "decay"}, params={"steps": 90})
    """

    uid: str  # hexadecimal, kept in the run's folder: by it MLflow's run is found again
    experiment: str
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, Any]
