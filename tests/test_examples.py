"""Every experiment file that ships resolves, with all of its arms."""

from pathlib import Path

import pytest

from orchestrator.crew.plans import plan_of
from orchestrator.crew.worker_specs import transfer_backend
from orchestrator.experiment_file import ExperimentFile
from orchestrator.model_files import find_model
from orchestrator.yaml_files import read_mapping
from sweeps.sweep_file import SweepFile

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for path in (ROOT / "examples").rglob("*.yaml") if "task" in read_mapping(path))


def test_the_controls_of_the_method_are_there() -> None:
    names = {path.relative_to(ROOT / "examples").as_posix() for path in FILES}
    controls = {f"controls/{name}.yaml" for name in ("lr", "precision", "quantized", "corrections")}
    assert controls | {"demo.yaml", "study.yaml", "gsm8k.yaml", "qwen3_4b_dapo.yaml"} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_arm_of_a_shipped_experiment_resolves(path: Path) -> None:
    file = ExperimentFile.read(path)
    assert len(file.arms()) > 1
    for arm in file.arms():
        config = file.resolve(arm)
        assert len(plan_of(config).seats) == config.rollout.workers + config.learner.workers + 1
        if config.model.path == "embedded":
            assert find_model(config, str(path)).context_length == 512


def test_the_shipped_sweep_is_about_both_triggered_policies_and_shares_steps() -> None:
    sweep = SweepFile.read(ROOT / "examples" / "sweep.yaml")
    assert sweep.shares
    assert sweep.config.trials == 16
    kinds = sweep.config.space["scheduler.kind"]
    assert {"length_triggered", "signal_triggered"} == set(kinds.edges())
    baseline, reported = sweep.baseline_config(), sweep.trial_config(sweep.config.enqueue[0])
    assert baseline.model_copy(update={"scheduler": reported.scheduler}) == reported


@pytest.mark.parametrize(
    ("name", "gpus", "transfer", "sets", "figure"),
    [
        ("gsm8k", 1, "ipc", ("test",), "eval/test/avg@4"),
        ("qwen3_4b_dapo", 8, "nccl", ("aime24", "aime25"), "eval/aime25/maj@32"),
    ],
)
def test_examples_on_real_problems_compare_the_decay_with_a_constant_rate_on_the_gpus_that_they_say(
    name: str, gpus: int, transfer: str, sets: tuple[str, ...], figure: str
) -> None:
    file = ExperimentFile.read(ROOT / "examples" / f"{name}.yaml")
    baseline, decay = (file.resolve(arm) for arm in ("baseline", "decay"))
    assert file.arms() == ["baseline", "decay"]
    assert (baseline.scheduler.kind, decay.scheduler.kind) == ("constant", "length_triggered")
    assert baseline.scheduler.lr == decay.scheduler.lr
    assert baseline.model_copy(update={"scheduler": decay.scheduler}) == decay
    assert sum(bundle.gpus for bundle in plan_of(decay).bundles) == gpus
    assert transfer_backend(decay) == transfer
    assert decay.task.kind == "math"
    assert decay.rollout.filter_flat_groups
    assert decay.evaluation is not None
    logged = decay.evaluation.keys()
    assert figure in logged
    assert decay.evaluation.names() == sets
    assert decay.record_rollouts is not None
