"""A sweep file with its experiment: what a trial is, and what does not fit the experiment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import yaml_files
from orchestrator.config_errors import ConfigError
from orchestrator.experiment_file import ExperimentFile, merge
from sweeps.sweep_file import SweepFile

EXPERIMENT: dict[str, Any] = {
    "name": "e",
    "model": {"path": "embedded"},
    "task": {"kind": "arithmetic"},
    "rollout": {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": 8},
    "scheduler": {"kind": "step", "lr": 1e-4, "warmup_steps": 3, "period": 7},
    "evaluation": {"every": 5, "samples": 4},
    "steps": 20,
    "seeds": [0, 1],
    "arms": {"decay": {"scheduler": {"kind": "length_triggered", "lr": 1e-3, "ratio": 1.5, "anchor": "surge"}}},
}
SWEEP: dict[str, Any] = {
    "experiment": "e.yaml",
    "arm": "decay",
    "space": {
        "scheduler.kind": {"kind": "categorical", "choices": ["length_triggered", "signal_triggered"]},
        "scheduler.signal": {
            "kind": "categorical",
            "choices": ["mismatch/log_ppl_abs_diff", "gradient/noise_scale"],
            "when": {"scheduler.kind": "signal_triggered"},
        },
        "scheduler.ratio": {"kind": "float", "low": 1.2, "high": 3.0},
        "scheduler.patience": {"kind": "int", "low": 1, "high": 5, "when": {"scheduler.kind": "length_triggered"}},
    },
    "objective": {"metric": "eval/held_out/avg@4"},
    "trials": 16,
}


def write(folder: Path, changes: dict[str, Any], experiment: dict[str, Any]) -> Path:
    (folder / "e.yaml").write_text(yaml_files.dump(merge(EXPERIMENT, experiment)))
    path = folder / "ratios.yaml"
    path.write_text(yaml_files.dump(merge(SWEEP, changes)))
    return path


def read(folder: Path, changes: dict[str, Any] | None = None, **experiment: Any) -> SweepFile:
    return SweepFile.read(write(folder, changes or {}, experiment))


def mistake(
    folder: Path, changes: dict[str, Any] | None = None, overrides: Sequence[str] = (), **experiment: Any
) -> str:
    """The message about the valid files with these changes, without the name of the sweep's."""
    path = write(folder, changes or {}, experiment)
    with pytest.raises(ConfigError) as raised:
        SweepFile.read(path, overrides)
    message = str(raised.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_the_experiment_is_the_arm_and_the_changes_under_the_name_of_the_sweep(tmp_path: Path) -> None:
    sweep = read(tmp_path, {"changes": {"steps": 60}})
    config = sweep.trial_config({})
    arm = ExperimentFile.read(tmp_path / "e.yaml").resolve("decay")
    assert config == arm.model_copy(update={"name": "ratios", "steps": 60})
    assert (sweep.name, sweep.experiment.path, sweep.experiment.arms()) == ("ratios", str(tmp_path / "e.yaml"), [])


def test_without_an_arm_it_is_the_experiment_itself(tmp_path: Path) -> None:
    config = read(tmp_path, {"arm": None}).trial_config({})
    assert (config.scheduler.kind, config.scheduler.lr, config.seeds) == ("step", 1e-4, [0, 1])
    named_so = read(tmp_path, {"arm": None}, arms={"default": {"steps": 3}})
    assert named_so.trial_config({}).steps == 20


def test_a_sweep_may_have_its_own_name_and_seeds(tmp_path: Path) -> None:
    sweep = read(tmp_path, {"name": "other", "seeds": [5]})
    assert (sweep.name, sweep.trial_config({}).name, sweep.trial_config({}).seeds) == ("other", "other", [5])
    assert sweep.baseline_config().seeds == [5]


def test_a_trial_sets_values_and_keeps_what_its_kind_knows(tmp_path: Path) -> None:
    sweep = read(tmp_path)
    params = {"scheduler.ratio": 2.0, "scheduler.signal": "gradient/noise_scale", "scheduler.kind": "signal_triggered"}
    scheduler = sweep.trial_config(params).scheduler
    assert scheduler.model_dump(exclude_unset=True) == {
        "kind": "signal_triggered",
        "lr": 1e-3,
        "ratio": 2.0,
        "signal": "gradient/noise_scale",
    }
    unchanged = sweep.trial_config({"scheduler.kind": "length_triggered", "scheduler.patience": 5})
    assert unchanged.scheduler.model_dump(exclude_unset=True)["anchor"] == "surge"


def test_defaults_of_the_old_kind_do_not_become_values_of_the_new(tmp_path: Path) -> None:
    space = {"scheduler.kind": {"kind": "categorical", "choices": ["step", "length_triggered"]}}
    tree = {**SWEEP, "arm": None, "space": space}
    path = write(tmp_path, {}, {})
    path.write_text(yaml_files.dump(tree))
    changed = SweepFile.read(path).trial_config({"scheduler.kind": "length_triggered"}).scheduler
    assert changed.model_dump()["min_lr_ratio"] == 0.1  # of step it is 0


def test_the_baseline_has_a_constant_rate_and_is_else_the_experiment(tmp_path: Path) -> None:
    sweep = read(tmp_path, scheduler={"warmup_steps": 3})
    baseline = sweep.baseline_config()
    assert baseline.scheduler.model_dump() == {"kind": "constant", "lr": 1e-3, "warmup_steps": 0}
    assert baseline.model_copy(update={"scheduler": None}) == sweep.trial_config({}).model_copy(
        update={"scheduler": None}
    )
    whole = read(tmp_path, {"arm": None}).baseline_config()
    assert whole.scheduler.model_dump() == {"kind": "constant", "lr": 1e-4, "warmup_steps": 3}


def test_values_that_do_not_go_together_are_told(tmp_path: Path) -> None:
    sweep = read(tmp_path)
    with pytest.raises(ConfigError, match=r"ratios.yaml: scheduler.ratio: got -1.0, expected greater than 0"):
        sweep.trial_config({"scheduler.ratio": -1.0})


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepFile:
    return read(tmp_path_factory.mktemp("sweep"))


@given(ratio=st.floats(1.2, 3.0), patience=st.integers(1, 5))
def test_every_trial_within_the_space_is_an_experiment(sweep: SweepFile, ratio: float, patience: int) -> None:
    params = {"scheduler.kind": "length_triggered", "scheduler.ratio": ratio, "scheduler.patience": patience}
    dumped = sweep.trial_config(params).scheduler.model_dump()
    assert (dumped["ratio"], dumped["patience"]) == (ratio, patience)


def test_overrides_are_over_the_sweep_file_and_reach_the_experiment_by_its_changes(tmp_path: Path) -> None:
    overrides = [
        "trials=3",
        "changes.steps=9",
        "space.scheduler.ratio.high=2",
        "objective.last=null",
        "sharing.every=2",
    ]
    overrides.append("space.scheduler.smoothing={kind: float, low: 0.1, high: 0.5}")
    sweep = SweepFile.read(write(tmp_path, {}, {}), overrides)
    assert (sweep.config.trials, sweep.config.objective.last, sweep.config.sharing.every) == (3, None, 2)
    assert sweep.config.space["scheduler.ratio"].edges() == (1.2, 2)
    assert sweep.config.space["scheduler.smoothing"].edges() == (0.1, 0.5)
    assert sweep.trial_config({}).steps == 9


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trials", "--set: trials: expected KEY=VALUE with a dotted key, such as trials=8"),
        ("trials=0", "--set trials: got 0, expected greater than or equal to 1"),
        ("trials.x=0", "--set: trials.x: got 0, expected a key below 'trials', which holds 16"),
        ("space.scheduler.ratio.low=5", "--set space.scheduler.ratio.low: got 5, expected at most high, which is 3.0"),
        ("steps=5", "--set steps: got 5, expected a known key"),
        ("space=3", "--set space: got 3, expected a mapping"),
    ],
)
def test_a_mistake_in_an_override_is_told_as_such(tmp_path: Path, override: str, said: str) -> None:
    assert mistake(tmp_path, {}, [override]).startswith(said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experiment": "x.yaml"}, "experiment: got 'x.yaml', expected an experiment file, seen from here: no "),
        ({"experiment": "."}, "experiment: got '.', expected an experiment file"),
        ({"arm": "decoy"}, "arm: got 'decoy', expected an arm of "),
        ({"changes": {"step": 1}}, "changes.step: got 1, expected a known key; did you mean 'steps'?"),
        ({"changes": {"scheduler": {"ratio": -1}}}, "changes.scheduler.ratio: got -1, expected greater than 0"),
        (
            {"changes": {"rollout": {"group_size": 1}}},
            "changes.rollout.group_size: got 1, expected at least 2 responses",
        ),
    ],
)
def test_what_does_not_fit_the_experiment_has_its_place(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert mistake(tmp_path, changes).startswith(said)


def test_the_arms_that_exist_are_named(tmp_path: Path) -> None:
    assert mistake(tmp_path, {"arm": "decoy"}).endswith("did you mean 'decay'? one of: decay")
    assert mistake(tmp_path, {}, arms=None).endswith("e.yaml has no arms")


def test_a_mistake_in_the_experiment_is_told_of_its_file(tmp_path: Path) -> None:
    assert mistake(tmp_path, {}, steps=0) == f"{tmp_path / 'e.yaml'}: steps: got 0, expected greater than or equal to 1"


def test_a_file_whose_name_is_no_name_needs_one(tmp_path: Path) -> None:
    path = write(tmp_path, {}, {}).rename(tmp_path / "my sweep.yaml")
    with pytest.raises(ConfigError, match=r"name: got 'my sweep', expected a name of up to 100 letters"):
        SweepFile.read(path)


def test_a_sweep_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no.yaml: expected a readable file"):
        SweepFile.read(tmp_path / "no.yaml")
