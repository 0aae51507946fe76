"""The detectors file of a report: named policies to hold against recorded runs, and what counts as a collapse."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.lr_policies import PolicyConfig
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.stability import StabilityConfig
from orchestrator.yaml_files import read_mapping
from sweeps.curves import read_stability
from sweeps.scheduler_block import scheduler_block

STABILITY = "stability"  # the one key of the file that is no detector


@dataclass(frozen=True, slots=True, kw_only=True)
class Detectors:
    """What a detectors file says.

    Example:
        Detectors(policies={"length": LengthTriggeredConfig(ratio=1.5)}, stability=None)

        of the file
            length: {kind: length_triggered, ratio: 1.5}
    """

    policies: Mapping[str, PolicyConfig]
    stability: StabilityConfig | None  # None: each run is judged by its own settings

    @classmethod
    def read(cls, path: str | Path) -> "Detectors":
        """Read and check a file.

        Raises:
            ConfigError: with file, field, value and what was expected.
        """
        tree = read_mapping(path)
        policies = {name: _policy(name, block, str(path)) for name, block in tree.items() if name != STABILITY}
        if not policies:
            expected = "at least one detector, such as length: {kind: length_triggered}"
            raise ConfigError(str(path), "", MISSING, expected)
        return cls(policies=policies, stability=read_stability(tree, str(path)) if STABILITY in tree else None)


def _policy(name: str, block: Any, file: str) -> PolicyConfig:
    policy = scheduler_block(block, file, name)
    try:
        policy.build(total_steps=None)
    except ValueError as error:
        raise ConfigError(file, f"{name}.total_steps", MISSING, f"a value ({error})") from None
    return policy
