"""The detectors file of a report: named policies to hold against recorded runs, and what counts as a collapse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.lr_policies import LengthTriggeredConfig, SignalTriggeredConfig
from actors.lr_policies.detector import DetectorConfig
from orchestrator.config_errors import MISSING, ConfigError, one_of
from orchestrator.stability import StabilityConfig
from orchestrator.trace_tables import STEP
from orchestrator.yaml_files import read_mapping
from sweeps.curves import Curves, read_stability
from sweeps.scheduler_block import scheduler_block

STABILITY = "stability"  # the one key of the file that is no detector
WATCHES = "a policy that watches a metric"


@dataclass(frozen=True, slots=True, kw_only=True)
class Detectors:
    """What a detectors file says.

    Example:
        Detectors(policies={"length": LengthTriggeredConfig(ratio=1.5)}, stability=None)

        of the file
            length: {kind: length_triggered, ratio: 1.5}
    """

    policies: Mapping[str, DetectorConfig]
    stability: StabilityConfig | None  # None: each run is judged by its own settings

    @classmethod
    def read(cls, path: str | Path) -> "Detectors":
        """Read and check a file.

        Raises:
            ConfigError: with file, field, value and what was expected.
        """
        tree = read_mapping(path)
        policies = {name: _detector(name, block, str(path)) for name, block in tree.items() if name != STABILITY}
        if not policies:
            expected = "at least one detector, such as length: {kind: length_triggered}"
            raise ConfigError(str(path), "", MISSING, expected)
        return cls(policies=policies, stability=read_stability(tree, str(path)) if STABILITY in tree else None)


def _detector(name: str, block: Any, file: str) -> DetectorConfig:
    """A policy that decides by what it sees."""
    policy = scheduler_block(block, file, name)
    if not isinstance(policy, DetectorConfig):
        raise ConfigError(file, f"{name}.kind", policy.kind, f"{WATCHES}: length_triggered or signal_triggered")
    if isinstance(policy, LengthTriggeredConfig):
        if policy.surge_step is not None:
            raise ConfigError(file, f"{name}.surge_step", policy.surge_step, f"{WATCHES}: without surge_step")
        if policy.decay_period is not None and policy.anchor == "start":
            expected = f"{WATCHES}: without decay_period, or with anchor: surge"
            raise ConfigError(file, f"{name}.decay_period", policy.decay_period, expected)
    return policy


def check_signals(detectors: Mapping[str, DetectorConfig], runs: Sequence[Curves], file: str) -> None:
    """Refuse a detector whose signal none of the runs has recorded.

    Args:
        detectors: by name.
        runs: all that there are.
        file: of the detectors, for the message.

    Raises:
        ConfigError: with the metrics that the runs have recorded.
    """
    recorded = sorted({key for run in runs for row in run.rows for key in row} - {STEP})
    for name, detector in detectors.items():
        field = f"{name}.signal" if isinstance(detector, SignalTriggeredConfig) else name
        for signal in detector.build(total_steps=None).signals:
            if signal not in recorded:
                raise ConfigError(file, field, signal, f"a metric that a run has recorded; {one_of(signal, recorded)}")
