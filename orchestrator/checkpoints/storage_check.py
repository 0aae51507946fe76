"""Whether the storage that an experiment file names can be used, found before anything is started."""

import subprocess
import sys
from collections.abc import Iterable

from orchestrator.config import CheckpointConfig
from orchestrator.config_errors import ConfigError

TIMEOUT_S = 60.0
PROBE = "orchestrator.checkpoints.storage_probe"


def check_storage(configs: Iterable[CheckpointConfig | None], file: str, timeout_s: float = TIMEOUT_S) -> None:
    """Write, read and delete a small file where checkpoints are to go, from this machine.

    Args:
        configs: `checkpoint` blocks; where they name no storage there is nothing to check.
        file: where they were read, for the message.
        timeout_s: after which the storage counts as out of reach.

    Raises:
        ConfigError: it cannot be used, and why.
    """
    for storage in dict.fromkeys(config.storage for config in configs if config and config.storage):
        if reason := _reason(storage, timeout_s):
            expected = f"a place where files can be written, read and deleted ({reason})"
            raise ConfigError(file, "checkpoint.storage", storage, expected)


def _reason(storage: str, timeout_s: float) -> str:
    """What is wrong with it; nothing when it can be used."""
    command = [sys.executable, "-m", PROBE, storage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            told, errors = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return f"no answer within {timeout_s:g} s"
        finally:
            child.kill()
    return "" if child.returncode == 0 else " ".join((told.strip() or errors.strip().rpartition("\n")[2]).split())
