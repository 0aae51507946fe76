"""Every experiment file that ships resolves, with all of its arms."""

from pathlib import Path

import pytest

from orchestrator.config import ExperimentFile
from orchestrator.model_files import find_model
from orchestrator.yaml_files import read_mapping

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for path in (ROOT / "examples").rglob("*.yaml") if "task" in read_mapping(path))


def test_the_controls_of_the_method_are_there() -> None:
    names = {path.relative_to(ROOT / "examples").as_posix() for path in FILES}
    controls = {f"controls/{name}.yaml" for name in ("lr", "precision", "quantized", "corrections")}
    assert controls | {"demo.yaml", "study.yaml"} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_arm_of_a_shipped_experiment_resolves(path: Path) -> None:
    file = ExperimentFile.read(path)
    assert len(file.arms()) > 1
    for arm in file.arms():
        config = file.resolve(arm)
        if config.model.path == "embedded":
            assert find_model(config, str(path)).context_length == 512
