"""What a benchmark found, as a table on the screen and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.bench.machine import Machine
from orchestrator.bench.pairs import Pairs, Spread
from orchestrator.config_errors import ConfigError

THOUSAND = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number with what is wanted of it.

    Example:
        Figure(name="whole step / bare parts", value=1.08, unit="", target=1.1, spread=Spread(...), pairs=Pairs(...))
    """

    name: str
    value: float
    unit: str = ""
    target: float | None = None  # None: told for information
    at_least: bool = False  # the target is a floor, not a ceiling
    spread: Spread | None = None  # of the single measurements
    pairs: Pairs | None = None  # all of them

    @staticmethod
    def ratio(name: str, pairs: Pairs, target: float | None) -> "Figure":
        """Ours over bare: the median of the pairs and their spread."""
        return Figure(name=name, value=pairs.ratio, target=target, spread=pairs.ratios, pairs=pairs)

    @staticmethod
    def median(name: str, unit: str, values: Sequence[float], target: float | None = None) -> "Figure":
        """The median of single measurements, with their spread."""
        spread = Spread.of(values)
        return Figure(name=name, value=spread.median, unit=unit, target=target, spread=spread)

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All figures of one benchmark.

    Example:
        Result(benchmark="decide", settings={"calls": 20}, figures=(figure,))
    """

    benchmark: str
    settings: Mapping[str, Any]
    figures: tuple[Figure, ...]
    machine: Machine = field(default_factory=Machine.here)

    def show(self, console: Console) -> None:
        """Print the figures, then what they were measured on."""
        table = Table(self.benchmark, "", "quartiles", "target", "")
        table.columns[1].justify = "right"
        for figure in self.figures:
            table.add_row(figure.name, f"{_rounded(figure.value)} {figure.unit}".strip(), *_told(figure))
        console.print(table)
        machine = self.machine
        versions = ", ".join(f"{name} {found}" for name, found in machine.versions.items())
        where = f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib:g} GiB, load {machine.load:g}"
        console.print(f"{where}; {versions}; commit {machine.commit or '-'}", style="dim", highlight=False)

    def as_json(self) -> dict[str, Any]:
        """The same and every single measurement, as what `json.dumps` takes."""
        figures = [{**asdict(figure), "holds": figure.holds} for figure in self.figures]
        return {**asdict(self), "settings": dict(self.settings), "figures": figures}

    def write(self, path: Path) -> None:
        """Write the JSON.

        Raises:
            ConfigError: the file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.as_json(), indent=1) + "\n")
        except OSError as error:
            raise ConfigError("--json", "", str(path), f"a file that can be written ({error.strerror})") from None


def _told(figure: Figure) -> tuple[str, str, str]:
    spread = f"{_rounded(figure.spread.lower)} to {_rounded(figure.spread.upper)}" if figure.spread else ""
    if figure.target is None:
        return spread, "", ""
    target = f"at {'least' if figure.at_least else 'most'} {figure.target:g}"
    return spread, target, "[green]holds[/]" if figure.holds else "[red]does not hold[/]"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= THOUSAND else f"{value:.3g}"
