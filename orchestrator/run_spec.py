"""Which run: everything that tells one from another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from actors.faults import Faults
from orchestrator.config import ExperimentConfig
from orchestrator.crew.workers import REAL, Roles
from orchestrator.model_files import ModelFiles
from orchestrator.run.recorder import Watch
from orchestrator.task_problems import TaskFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Which run.

    Example:
        RunSpec(config=config, model=model, task=TaskFiles.open(config, "demo.yaml"), arm="decay", seed=0,
                folder=Path("runs/demo/decay/seed-0"), resume=True)
    """

    config: ExperimentConfig
    model: ModelFiles
    task: TaskFiles
    arm: str
    seed: int
    folder: Path
    resume: bool = False  # go on with what is in the folder, if there is anything
    faults: Faults = field(default_factory=Faults)
    roles: Roles = REAL
    tags: Mapping[str, str] = field(default_factory=dict)  # further ones for MLflow
    watch: Watch | None = None
    quiet: bool = False  # few plain lines on the screen: several runs at once share it
