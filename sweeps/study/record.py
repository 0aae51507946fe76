"""What stands of a study in its folder: every trial, what it was worth, and what its runs cost. Read by the report."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from actors.settings import Settings
from orchestrator.config_errors import MISSING, ConfigError, describe

STUDY = "study.json"  # beside the trials
State = Literal["complete", "pruned", "failed", "running"]


class SeedRecord(Settings):
    """A trial's run with one seed.

    Example:
        SeedRecord(steps=100, executed=39, source="baseline", forked_at=61)
    """

    steps: int  # that its metrics have
    executed: int  # of these, those that were trained for it
    source: str | None = None  # the arm whose steps it shares; None when it shares none
    forked_at: int | None = None  # its first own step; equal to `steps` when it has none


class TrialRecord(Settings):
    """A trial of a study.

    Example:
        TrialRecord(number=7, arm="trial-007", state="complete", params={"scheduler.ratio": 1.8}, value=0.71,
                    constraints={"mismatch/log_ppl_abs_diff p95": -0.002}, reason=None,
                    seeds={"0": SeedRecord(steps=100, executed=39, source="baseline", forked_at=61)})
    """

    number: int
    arm: str
    state: State
    params: dict[str, float | int | str | bool | None]
    value: float | None  # of the objective; None unless complete
    constraints: dict[str, float]  # feasible when none is above 0
    reason: str | None  # why it was pruned or failed
    seeds: dict[str, SeedRecord]

    @property
    def feasible(self) -> bool:
        """Whether it keeps all constraints."""
        return all(value <= 0 for value in self.constraints.values())


class Accounting(Settings):
    """Training steps of a study, over all seeds.

    Example:
        Accounting(executed=702, saved=898, naive=1600, free=3, merged=2)
    """

    executed: int  # those of the baseline runs included
    saved: int  # what runs share with earlier ones
    naive: int  # what the trials' runs have in all
    free: int  # trials that decide as the baseline does throughout, and cost nothing
    merged: int  # trials that decide as an earlier trial does throughout


class ObjectiveRecord(Settings):
    """What the trials were judged by.

    Example:
        ObjectiveRecord(metric="eval/heldout/avg@4", last=3, aggregate="mean")
    """

    metric: str
    last: int | None
    aggregate: str


class StudyRecord(Settings):
    """The whole study.

    Example:
        StudyRecord.read(Path("runs/demo-thresholds")).best
    """

    name: str
    direction: Literal["maximize", "minimize"]
    objective: ObjectiveRecord
    space: dict[str, dict[str, Any]]
    seeds: list[int]
    steps: int
    sharing: bool
    trials: list[TrialRecord] = Field(description="by number")
    accounting: Accounting

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial with the best value among those that keep all constraints; the first of equals."""
        done = [trial for trial in self.trials if trial.state == "complete" and trial.feasible]
        sign = 1 if self.direction == "minimize" else -1
        return min(done, key=lambda trial: sign * (trial.value or 0.0), default=None)

    @property
    def has_failed(self) -> bool:
        """Whether every trial has failed by itself, so that nothing is known."""
        return bool(self.trials) and all(trial.state == "failed" for trial in self.trials)

    @classmethod
    def read(cls, folder: Path) -> "StudyRecord":
        """What a study's folder holds.

        Raises:
            ConfigError: there is no such file, or it holds something else.
        """
        path = folder / STUDY
        try:
            tree = json.loads(path.read_bytes())
            return cls.model_validate(tree)
        except OSError as error:
            raise ConfigError(str(path), "", MISSING, f"a readable file ({error.strerror})") from None
        except ValidationError as error:
            raise describe(error, cls, tree, str(path), ".".join) from None
        except ValueError as error:
            raise ConfigError(str(path), "", MISSING, f"the record of a study ({error})") from None

    def write(self, folder: Path) -> None:
        """Put it into the study's folder, whole.

        Raises:
            OSError: the disk refuses; what was there stays.
        """
        partial = folder / f".{STUDY}.{os.getpid()}.partial"
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(json.dumps(self.model_dump(mode="json"), indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(folder / STUDY)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
