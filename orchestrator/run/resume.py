"""Whether a run may go on under today's config."""

from pathlib import Path

from orchestrator.checkpoints.fingerprint import check_same
from orchestrator.checkpoints.place import check_same_place
from orchestrator.config import ExperimentConfig
from orchestrator.run.folder import CONFIG, stored_config
from orchestrator.yaml_files import read_mapping


def check_resumable(folder: Path, config: ExperimentConfig, seed: int, file: str) -> None:
    """Refuse to go on with what is in a run's folder under a config that decides its numbers differently.

    Args:
        folder: of the run; nothing need be there.
        config: of today.
        seed: of the run.
        file: where the config was read, for the message.

    Raises:
        ConfigError: with the first field that differs; the stored config cannot be read; or the checkpoints are in
            another place than this config's.
    """
    check_same_place(folder, config.checkpoint, file)
    stored = folder / CONFIG
    if stored.exists():
        check_same(read_mapping(stored), stored_config(config, seed), file)
