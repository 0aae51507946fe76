"""A valid experiment file that tests change, and what is said of it then."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator import yaml_files
from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.experiment_file import DEFAULT_ARM, ExperimentFile, merge

TREE: dict[str, Any] = {
    "name": "e",
    "model": {"path": "embedded"},
    "task": {"kind": "arithmetic"},
    "rollout": {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": 8},
    "scheduler": {"kind": "length_triggered", "lr": 1e-6, "ratio": 1.5},
    "steps": 10,
}


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The valid tree with other values; None takes a key out."""
    merged = merge(TREE, changes)
    return {key: value for key, value in merged.items() if value is not None}


def read(file: Path, changes: dict[str, Any] | None = None, overrides: Sequence[str] = ()) -> ExperimentFile:
    file.write_text(yaml_files.dump(changed(changes or {})))
    return ExperimentFile.read(file, overrides)


def mistake(file: Path, changes: dict[str, Any] | None = None, overrides: Sequence[str] = ()) -> str:
    """The message about the valid tree with these changes, without the file's name."""
    with pytest.raises(ConfigError) as raised:
        read(file, changes, overrides).resolve(DEFAULT_ARM)
    message = str(raised.value)
    assert "\n" not in message
    return message.removeprefix(f"{file}: ")


def resolved(file: Path, changes: dict[str, Any], overrides: Sequence[str] = ()) -> ExperimentConfig:
    return read(file, changes, overrides).resolve(DEFAULT_ARM)


# The corrections with the defaults of docs/method.md section 5.
