"""A recorded run, column by column, as its folder holds it."""

import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from actors.settings import Count, Settings
from orchestrator.config_errors import MISSING, ConfigError, describe
from orchestrator.json_lines import json_objects
from orchestrator.run.folder import CONFIG, METRICS
from orchestrator.stability import StabilityConfig, Verdict, judge
from orchestrator.traces import LARGEST_STEP
from orchestrator.yaml_files import read_mapping

EVENT = "scheduler/event/"
Blocks = TypeVar("Blocks", bound=Settings)


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
    num_steps: int | None = None  # that its config asks for; None when there is none

    @classmethod
    def read(cls, folder: Path, arm: str, seed: int) -> "Curves":
        """What a run folder has recorded so far; no steps when it has not got that far.

        Raises:
            ConfigError: a line of the metrics, or `stability` or `steps` of the stored config, cannot be used.
        """
        rows = read_rows(folder / METRICS) if (folder / METRICS).exists() else []
        tree = read_mapping(folder / CONFIG) if (folder / CONFIG).exists() else {}
        config = _read(_RunBlocks, tree, str(folder / CONFIG))
        return cls(
            arm=arm,
            seed=seed,
            steps=np.array([int(row["step"]) for row in rows], np.int64),
            rows=tuple(rows),
            stability=config.stability,
            num_steps=config.steps,
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

    @property
    def finished(self) -> bool:
        """Whether it came to the last step that its config asks for; taken as read where there is no config."""
        return self.num_steps is None or (len(self.steps) > 0 and int(self.steps[-1]) >= self.num_steps - 1)


class _StabilityBlock(Settings):
    stability: StabilityConfig = StabilityConfig()


class _RunBlocks(_StabilityBlock):
    steps: Count | None = None


def read_stability(tree: dict[str, Any], file: str) -> StabilityConfig:
    """The `stability` block of a file's mapping, or the defaults when it has none.

    Raises:
        ConfigError: it is not valid; `file` is named in it.
    """
    return _read(_StabilityBlock, tree, file).stability


def _read(model: type[Blocks], tree: dict[str, Any], file: str) -> Blocks:
    """Those blocks of a file that the model knows."""
    known = {key: value for key, value in tree.items() if key in model.model_fields}
    try:
        return model.model_validate(known)
    except ValidationError as error:
        raise describe(error, model, known, file, ".".join) from None


def read_rows(path: Path) -> list[dict[str, float]]:
    """All steps of a metrics file, in file order; a last line that a crash has cut off is left out.

    Raises:
        ConfigError: the file cannot be read, or a line is not a step's metrics; with the line's number.
    """
    try:
        lines = list(io.BytesIO(path.read_bytes()))
    except OSError as error:
        raise ConfigError(str(path), "", MISSING, f"a readable file ({error.strerror})") from None
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    rows: list[dict[str, float]] = []
    for number, row in json_objects(lines, str(path)):
        where = f"{path}: line {number}"
        _check(row, where)
        if rows and row["step"] <= rows[-1]["step"]:
            raise ConfigError(where, "step", row["step"], f"more than {rows[-1]['step']}")
        rows.append(row)
    return rows


def _check(row: dict[str, Any], where: str) -> None:
    step = row.get("step", MISSING)
    if type(step) is not int or not 0 <= step <= LARGEST_STEP:
        raise ConfigError(where, "step", step, "a step number, 0 or more")
    for key, value in row.items():
        if not _is_finite(value):
            raise ConfigError(where, key, value, "a finite number")


def _is_finite(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False
