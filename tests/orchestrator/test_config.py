"""The experiment file: every mistake in one line, and what arms and `--set` change."""

import sys
from pathlib import Path
from typing import Any

import pytest
from experiment_files import TREE, mistake, read
from hypothesis import given
from hypothesis import strategies as st

from actors.lr_policies import ConstantConfig, LengthTriggeredConfig
from orchestrator import yaml_files
from orchestrator.config_errors import ConfigError
from orchestrator.experiment_file import ExperimentFile, merge
from sweeps import cli

FILES = (Path(__file__).parents[2] / "examples").rglob("*.yaml")
EXAMPLES = sorted(path for path in FILES if "task" in yaml_files.read_mapping(path))
trees = st.recursive(
    st.integers(0, 3),
    lambda below: st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "e.yaml"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_resolves_in_all_of_its_arms(path: Path) -> None:
    experiment = ExperimentFile.read(path)
    for arm in [*experiment.arms(), "default"]:
        assert experiment.resolve(arm).arms == {}


def test_there_is_an_example_to_resolve() -> None:
    assert EXAMPLES


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": 1}, "step: got 1, expected a known key; did you mean 'steps'?"),
        ({"rollout": {"group_sise": 4}}, "rollout.group_sise: got 4, expected a known key; did you mean 'group_size'?"),
        ({"learner": {"optimizer": {"lr": 1e-6}}}, "learner.optimizer.lr: got 1e-06, expected a known key"),
        ({"steps": "10"}, "steps: got '10', expected a valid integer"),
        ({"steps": True}, "steps: got True, expected a valid integer"),
        ({"steps": [10]}, "steps: got [10], expected a valid integer"),
        ({"steps": 1.5}, "steps: got 1.5, expected a valid integer"),
        ({"rollout": 7}, "rollout: got 7, expected a mapping"),
        ({"name": 7}, "name: got 7, expected a valid string"),
        ({"name": "a/b"}, "name: got 'a/b', expected"),
        ({"name": ".."}, "name: got '..', expected"),
        ({"scheduler": {"kind": "magic"}}, "scheduler.kind: got 'magic', expected a kind out of 'constant'"),
        (
            {"task": {"kind": "maths"}},
            "task.kind: got 'maths', expected a kind out of 'arithmetic', 'exact', 'regex', 'math', 'python'",
        ),
        (
            {"scheduler": {"kind": "length_triggered", "ratoi": 2}},
            "scheduler.ratoi: got 2, expected a known key; did you",
        ),
        ({"scheduler": {"lr": float("inf")}}, "scheduler.lr: got inf, expected a finite number"),
        ({"scheduler": {"lr": -1.0}}, "scheduler.lr: got -1.0, expected greater than or equal to 0"),
        ({"model": None}, "model: expected a value: it is missing"),
        ({"rollout": {"prompts_per_step": 0}}, "rollout.prompts_per_step: got 0, expected greater than or equal to 1"),
        (
            {"rollout": {"prompts_per_step": -1}},
            "rollout.prompts_per_step: got -1, expected greater than or equal to 1",
        ),
        ({"seeds": []}, "seeds: got [], expected"),
        ({"seeds": [0, 0]}, "seeds: got [0, 0], expected seeds that differ"),
        ({"seeds": [0, -1]}, "seeds.1: got -1, expected greater than or equal to 0"),
        ({"learner": {"optimizer": {"betas": [0.9]}}}, "learner.optimizer.betas"),
        ({"rollout": {"gpus_per_worker": 1}}, "learner.gpus_per_worker: expected GPUs for the rollout workers and the"),
        (
            {"scheduler": {"kind": "linear", "warmup_steps": 10}},
            "scheduler.warmup_steps: got 10, expected less than total_steps, which is ",
        ),
        ({"arms": [1]}, "arms: got [1], expected a mapping from arm names"),
        ({"arms": {"a": 3}}, "arms.a: got 3, expected a mapping of what the arm changes"),
        ({"arms": {"a": {"stpes": 3}}}, "arms.a.stpes: got 3, expected a known key; did you mean 'steps'?"),
        ({"arms": {"a": {"rollout": {"group": 3}}}}, "arms.a.rollout.group: got 3, expected a known key"),
        ({"arms": {"a": {"seeds": [1]}}}, "arms.a.seeds: got [1], expected something an arm may change"),
        ({"arms": {"a": {"name": "other"}}}, "arms.a.name: got 'other', expected something an arm may change"),
        ({"arms": {"a": {}, "b": {"steps": 0}}}, "arms.b.steps: got 0, expected greater than or equal to 1"),
        ({"arms": {"a": {"scheduler": {"kind": "magic"}}}}, "arms.a.scheduler.kind: got 'magic', expected a kind out"),
    ],
)
def test_a_mistake_is_told_with_field_value_and_expectation(file: Path, changes: dict[str, Any], said: str) -> None:
    assert mistake(file, changes).startswith(said)


@pytest.mark.parametrize("advantage", ["grpo", "dr_grpo", "rloo", "optimal_token_baseline"])
def test_a_group_of_one_is_refused_for_every_group_relative_advantage(file: Path, advantage: str) -> None:
    text = mistake(file, {"rollout": {"group_size": 1}, "learner": {"advantage": advantage}})
    assert text == f"rollout.group_size: got 1, expected at least 2 responses per prompt for advantage {advantage!r}"


def test_a_rule_that_an_arm_breaks_is_told_of_the_arm(file: Path) -> None:
    text = mistake(file, {"arms": {"a": {"rollout": {"group_size": 1}}}})
    assert text.startswith("arms.a.rollout.group_size: got 1, expected at least 2")


def test_of_several_mistakes_the_first_is_told_and_the_others_counted(file: Path) -> None:
    text = mistake(file, {"name": 3, "steps": 0, "rollout": {"group_size": "x"}})
    assert text == "name: got 3, expected a valid string (and 2 more)"


@pytest.mark.parametrize("arm", [1, 1e-6, "a/b", "..", ""])
def test_an_arm_whose_name_cannot_be_a_folders_is_refused(file: Path, arm: Any) -> None:
    assert mistake(file, {"arms": {arm: {}}}).startswith("arms")


def test_a_mapping_that_contains_itself_is_refused(file: Path) -> None:
    file.write_text(yaml_files.dump(TREE) + "learner: &x\n  optimizer: *x\n")
    with pytest.raises(ConfigError, match="learner"):
        ExperimentFile.read(file)


def test_a_number_in_scientific_notation_needs_no_point(file: Path) -> None:
    file.write_text(yaml_files.dump(TREE).replace("1.0e-06", "1e-6"))
    assert "1e-6" in file.read_text()
    assert ExperimentFile.read(file).resolve("default").scheduler.lr == 1e-6


def test_the_file_itself_is_the_arm_default(file: Path) -> None:
    experiment = read(file, {"arms": {"a": {"steps": 3}}})
    assert experiment.arms() == ["a"]
    assert (experiment.resolve("default").steps, experiment.resolve("a").steps) == (10, 3)


def test_an_arm_named_default_is_an_arm_like_any_other(file: Path) -> None:
    assert read(file, {"arms": {"default": {"steps": 3}}}).resolve("default").steps == 3


@pytest.mark.parametrize(("arms", "known"), [({"a": {}, "b": {}}, "a, b"), ({}, "no arms in this file")])
def test_an_unknown_arm_is_refused_with_those_there_are(file: Path, arms: dict[str, Any], known: str) -> None:
    experiment = read(file, {"arms": arms})
    with pytest.raises(ConfigError) as raised:
        experiment.resolve("c")
    assert str(raised.value) == f"{file}: arms: got 'c', expected one of: {known}"


def test_an_arm_is_merged_into_the_tree_mapping_by_mapping(file: Path) -> None:
    config = read(file, {"arms": {"a": {"rollout": {"group_size": 8}, "scheduler": {"ratio": 3.0}}}}).resolve("a")
    assert (config.rollout.group_size, config.rollout.prompts_per_step) == (8, 4)
    assert config.scheduler == LengthTriggeredConfig(lr=1e-6, ratio=3.0)


def test_a_mapping_of_another_kind_replaces_what_was_there(file: Path) -> None:
    experiment = read(file, {"arms": {"a": {"scheduler": {"kind": "constant", "lr": 1e-3}}}})
    assert experiment.resolve("a").scheduler == ConstantConfig(lr=1e-3)
    assert experiment.resolve("default").scheduler == LengthTriggeredConfig(lr=1e-6, ratio=1.5)


def test_resolving_an_arm_leaves_the_file_as_it_was(file: Path) -> None:
    experiment = read(file, {"arms": {"a": {"rollout": {"group_size": 8}}}}, ["rollout.max_rounds=2"])
    before = experiment.resolve("default")
    experiment.resolve("a")
    assert experiment.resolve("default") == before
    assert "max_rounds" not in experiment.tree["rollout"]


def test_set_wins_over_the_file_and_over_the_arm(file: Path) -> None:
    experiment = read(file, {"arms": {"a": {"steps": 3}}}, ["steps=5", "scheduler.lr=1e-4", "learner.workers=2"])
    for arm in ("a", "default"):
        config = experiment.resolve(arm)
        assert (config.steps, config.scheduler.lr, config.learner.workers) == (5, 1e-4, 2)


def test_the_last_set_of_a_key_wins(file: Path) -> None:
    assert read(file, {}, ["steps=5", "steps=6"]).resolve("default").steps == 6


def test_set_can_replace_a_whole_mapping(file: Path) -> None:
    experiment = read(file, {}, ["scheduler={kind: constant, lr: 1e-3}"])
    assert experiment.resolve("default").scheduler == ConstantConfig(lr=1e-3)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stpes=5", "--set stpes: got 5, expected a known key; did you mean 'steps'?"),
        ("rollout.group=5", "--set rollout.group: got 5, expected a known key"),
        ("no.such=5", "--set no: got {'such': 5}, expected a known key"),
        ("steps=abc", "--set steps: got 'abc', expected a valid integer"),
        ("steps=1e1", "--set steps: got 10.0, expected a valid integer"),
        ("rollout.group_size=1", "--set rollout.group_size: got 1, expected at least 2"),
        ("steps", "--set: steps: expected KEY=VALUE"),
        ("=5", "--set: =5: expected KEY=VALUE"),
        ("rollout..x=5", "--set: rollout..x=5: expected KEY=VALUE"),
        ("steps.x=5", "--set: steps.x: got 5, expected a key below 'steps', which holds 10"),
        ("steps=[1", "--set steps:1: expected YAML"),
    ],
)
def test_a_mistake_in_set_is_told_as_set(file: Path, override: str, said: str) -> None:
    assert said in mistake(file, {}, [override])


def test_set_inside_an_arm_takes_effect_or_is_refused(file: Path) -> None:
    try:
        experiment = read(file, {"arms": {"a": {"steps": 3}}}, ["arms.a.steps=7"])
    except ConfigError as error:
        assert "arms.a.steps" in str(error)
    else:
        assert experiment.resolve("a").steps == 7


@pytest.mark.parametrize(
    ("command", "overrides", "said"),
    [
        (
            "run",
            ["scheduler={kind: signal_triggered, signal: mismatch/k3_lk}"],
            "--set scheduler.signal: got 'mismatch/k3_lk', expected a metric that this run knows when it decides the "
            "rate; did you mean 'mismatch/k3_kl'? one of: reward/mean, ",
        ),
        (
            "compare",
            [
                "shadow.watch={kind: signal_triggered, signal: gradient/noise_scale}",
                "learner.gradient_noise.every=null",
            ],
            "--set shadow.watch.signal: got 'gradient/noise_scale', expected a metric that this run knows",
        ),
        ("run", ["learner.correction={kind: token_mask, lo: 2.0, hi: 1.0}"], "--set learner.correction.lo: got 2.0, "),
        ("doctor", ["stability.on_collapse=explode"], "--set stability.on_collapse: got 'explode', expected 'stop' or"),
        (
            "run",
            ["evaluation={every: 5, sets: 3}"],
            "--set evaluation.sets: got 3, expected a mapping",
        ),
    ],
)
def test_on_the_command_line_a_mistake_is_one_line_and_exit_code_2_and_nothing_is_started(
    *,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    overrides: list[str],
    said: str,
) -> None:
    file.write_text(yaml_files.dump({**TREE, "arms": {"a": {}}}))
    monkeypatch.chdir(file.parent)
    options = [word for override in overrides for word in ("--set", override)]
    monkeypatch.setattr(sys, "argv", ["evenkeel", command, file.name, *options])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.startswith(f"evenkeel: {file.name}: {said}")
    assert err.count("\n") == 1
    assert list(file.parent.iterdir()) == [file]


@given(mappings, mappings)
def test_merging_lays_the_changes_over_the_base_and_leaves_both_alone(
    base: dict[str, Any], changes: dict[str, Any]
) -> None:
    before = repr(base), repr(changes)
    merged = merge(base, changes)
    assert (repr(base), repr(changes)) == before
    assert merge(merged, changes) == merged
    assert list(merged) == list(dict.fromkeys([*base, *changes]))
    for key in merged:
        if isinstance(base.get(key), dict) and isinstance(changes.get(key), dict):
            assert merged[key] == merge(base[key], changes[key])
        else:
            assert merged[key] == (changes if key in changes else base)[key]
