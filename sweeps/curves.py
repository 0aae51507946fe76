"""A recorded run, column by column, as its folder holds it."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from actors.settings import Settings
from orchestrator.config_errors import MISSING, ConfigError, describe
from orchestrator.run_folder import CONFIG, METRICS
from orchestrator.stability import StabilityConfig, Verdict, judge
from orchestrator.yaml_files import read_mapping

EVENT = "scheduler/event/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """A recorded run, column by column.

    Example:
        Curves(arm="decay", seed=0, steps=array([0, 1]), rows=({"reward/mean": 0.2}, {"reward/mean": 0.3}))
    """

    arm: str
    seed: int
    steps: NDArray[np.int64]  # [N], growing
    rows: tuple[dict[str, float], ...]  # [N] metrics by key, and the step
    stability: StabilityConfig = field(default_factory=StabilityConfig)  # what counts as a collapse of this run

    @classmethod
    def read(cls, folder: Path, arm: str, seed: int) -> "Curves":
        """What a run folder has recorded so far; no steps when it has not got that far.

        Raises:
            ConfigError: a line of the metrics, or the `stability` block of the stored config, cannot be used.
        """
        rows = read_rows(folder / METRICS) if (folder / METRICS).exists() else []
        tree = read_mapping(folder / CONFIG) if (folder / CONFIG).exists() else {}
        return cls(
            arm=arm,
            seed=seed,
            steps=np.array([int(row["step"]) for row in rows], np.int64),
            rows=tuple(rows),
            stability=read_stability(tree, str(folder / CONFIG)),
        )

    def column(self, key: str) -> NDArray[np.float64]:
        """[N] values of a metric, NaN where it is absent."""
        return np.array([row.get(key, np.nan) for row in self.rows], np.float64)

    def events(self) -> list[tuple[int, str]]:
        """(step, event) of everything that happened to the learning rate, in order."""
        return [
            (int(row["step"]), key.removeprefix(EVENT)) for row in self.rows for key in row if key.startswith(EVENT)
        ]

    def verdict(self) -> Verdict | None:
        """When and why the run collapsed; None when it did not."""
        return judge(self.rows, self.stability)


class _StabilityBlock(Settings):
    stability: StabilityConfig = StabilityConfig()


def read_stability(tree: dict[str, Any], file: str) -> StabilityConfig:
    """The `stability` block of a file's mapping, or the defaults when it has none.

    Raises:
        ConfigError: it is not valid; `file` is named in it.
    """
    block = {"stability": tree["stability"]} if "stability" in tree else {}
    try:
        return _StabilityBlock.model_validate(block).stability
    except ValidationError as error:
        raise describe(error, _StabilityBlock, block, file, ".".join) from None


def read_rows(path: Path) -> list[dict[str, float]]:
    """All steps of a metrics file, in file order; a last line that a crash has cut off is left out.

    Raises:
        ConfigError: the file cannot be read, or a line is not a step's metrics; with the line's number.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "", MISSING, f"a readable file ({error})") from None
    rows: list[dict[str, float]] = []
    for number, line in enumerate(lines, start=1):
        row = _parse(line, f"{path}: line {number}")
        if rows and row["step"] <= rows[-1]["step"]:
            raise ConfigError(f"{path}: line {number}", "step", row["step"], f"more than {rows[-1]['step']}")
        rows.append(row)
    return rows


def _parse(line: str, where: str) -> dict[str, float]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(where, "", line, f"JSON ({error})") from None
    if not isinstance(row, dict):
        raise ConfigError(where, "", row, "an object with a step's metrics")
    step = row.get("step", MISSING)
    if type(step) is not int or step < 0:
        raise ConfigError(where, "step", step, "a step number, 0 or more")
    for key, value in row.items():
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ConfigError(where, key, value, "a finite number")
    return row
