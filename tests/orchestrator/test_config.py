"""The experiment file: every mistake in one line, and what arms and `--set` change."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.corrections import (
    CorrectionConfig,
    GeometricMask,
    NoCorrection,
    SequenceMask,
    SequenceTis,
    TokenMask,
    TokenTis,
)
from actors.lr_policies import ConstantConfig, LengthTriggeredConfig, SignalTriggeredConfig
from orchestrator import yaml_files
from orchestrator.config import DEFAULT_ARM, ExperimentConfig, ExperimentFile, merge
from orchestrator.config_errors import NAME, ConfigError
from orchestrator.evaluation import EvaluationConfig
from orchestrator.metric_keys import signal_keys
from orchestrator.stability import StabilityConfig
from sweeps import cli

FILES = (Path(__file__).parents[2] / "examples").rglob("*.yaml")
EXAMPLES = sorted(path for path in FILES if "task" in yaml_files.read_mapping(path))
TREE: dict[str, Any] = {
    "name": "e",
    "model": {"path": "embedded"},
    "task": {"kind": "arithmetic"},
    "rollout": {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": 8},
    "scheduler": {"kind": "length_triggered", "lr": 1e-6, "ratio": 1.5},
    "steps": 10,
}
trees = st.recursive(
    st.integers(0, 3),
    lambda below: st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The valid tree with other values; None takes a key out."""
    merged = merge(TREE, changes)
    return {key: value for key, value in merged.items() if value is not None}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "e.yaml"


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


def resolved(file: Path, changes: dict[str, Any], overrides: Sequence[str] = ()) -> ExperimentConfig:
    return read(file, changes, overrides).resolve(DEFAULT_ARM)


# The corrections with the defaults of docs/method.md section 5.
CORRECTIONS: dict[str, CorrectionConfig] = {
    "none": NoCorrection(),
    "token_tis": TokenTis(cap=2.0),
    "sequence_tis": SequenceTis(cap=2.0),
    "token_mask": TokenMask(lo=0.5, hi=5.0),
    "sequence_mask": SequenceMask(lo=0.0, hi=2.0),
    "geometric_mask": GeometricMask(lo=0.999, hi=1.001),
}


@pytest.mark.parametrize("kind", CORRECTIONS)
def test_a_correction_of_every_kind_has_the_defaults_of_the_method(file: Path, kind: str) -> None:
    config = resolved(file, {"learner": {"correction": {"kind": kind}}})
    assert config.learner.correction == CORRECTIONS[kind]


def test_the_bounds_of_a_correction_can_be_written(file: Path) -> None:
    config = resolved(file, {"learner": {"correction": {"kind": "token_mask", "lo": 0, "hi": 3.5}}})
    assert config.learner.correction == TokenMask(lo=0.0, hi=3.5)


@pytest.mark.parametrize(
    ("correction", "said"),
    [
        ({"kind": "tis"}, ".kind: got 'tis', expected a kind out of 'none', 'token_tis', 'sequence_tis', 'token_mask'"),
        ({}, ".kind: expected a kind out of 'none', 'token_tis', "),
        ("token_tis", ": got 'token_tis', expected a mapping"),
        ({"kind": "token_tis", "cap": 0}, ".cap: got 0, expected greater than 0"),
        ({"kind": "sequence_tis", "cap": -2.0}, ".cap: got -2.0, expected greater than 0"),
        ({"kind": "token_tis", "cap": "2"}, ".cap: got '2', expected a valid number"),
        ({"kind": "token_tis", "cap": float("inf")}, ".cap: got inf, expected a finite number"),
        ({"kind": "token_tis", "lo": 0.5}, ".lo: got 0.5, expected a known key, one of: kind, cap"),
        ({"kind": "none", "cap": 2.0}, ".cap: got 2.0, expected a known key, one of: kind"),
        ({"kind": "token_mask", "cap": 2.0}, ".cap: got 2.0, expected a known key, one of: lo, hi, kind"),
        ({"kind": "token_mask", "lo": 5.5}, ".lo: got 5.5, expected at most hi, which is 5"),
        ({"kind": "token_mask", "lo": 3, "hi": 2.0}, ".lo: got 3, expected at most hi, which is 2"),
        ({"kind": "geometric_mask", "hi": 0.5}, ".lo: got 0.999, expected at most hi, which is 0.5"),
        ({"kind": "geometric_mask", "lo": -1.0}, ".lo: got -1.0, expected greater than or equal to 0"),
        ({"kind": "geometric_mask", "hi": None}, ".hi: got null, expected a valid number"),
    ],
)
def test_a_correction_out_of_range_is_refused_in_one_line(file: Path, correction: Any, said: str) -> None:
    assert mistake(file, {"learner": {"correction": correction}}).startswith(f"learner.correction{said}")


def test_a_correction_of_another_kind_in_an_arm_leaves_nothing_of_the_first(file: Path) -> None:
    changes = {
        "learner": {"correction": {"kind": "token_tis", "cap": 3.0}},
        "arms": {"mask": {"learner": {"correction": {"kind": "token_mask"}}}},
    }
    assert read(file, changes).resolve("mask").learner.correction == TokenMask()


def test_the_new_blocks_are_read_as_written(file: Path) -> None:
    config = resolved(
        file,
        {
            "rollout": {"quantize": "fp8"},
            "learner": {"advantage": "optimal_token_baseline", "gradient_noise": {"every": 5}},
            "evaluation": {"every": 20, "samples": 4},
            "stability": {"on_collapse": "stop", "fraction": 0, "max_mismatch": 0.5},
        },
    )
    assert config.rollout.quantize == "fp8"
    assert config.learner.advantage == "optimal_token_baseline"
    assert config.learner.gradient_noise.every == 5
    assert config.evaluation == EvaluationConfig(every=20, problems=None, samples=4, sets={}, temperature=None)
    assert config.stability == StabilityConfig(on_collapse="stop", fraction=0.0, max_mismatch=0.5)


def test_what_is_not_written_changes_nothing_about_a_run_but_what_it_measures(file: Path) -> None:
    config = resolved(file, {})
    assert config.rollout.quantize is None
    assert config.learner.correction == NoCorrection()
    assert config.evaluation is None
    assert config.shadow == {}
    assert config.stability.on_collapse == "record"
    assert config.learner.gradient_noise.every == 1


@pytest.mark.parametrize(
    ("every", "due"), [("1", list(range(7))), ("3", [0, 3, 6]), ("null", [])], ids=["always", "seldom", "never"]
)
def test_gradient_noise_is_due_at_the_steps_that_every_divides(file: Path, every: str, due: list[int]) -> None:
    noise = resolved(file, {}, [f"learner.gradient_noise.every={every}"]).learner.gradient_noise
    assert [step for step in range(7) if noise.due(step)] == due


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learner": {"advantage": "otb"}}, "learner.advantage: got 'otb', expected 'grpo', 'dr_grpo', 'rloo' or 'opt"),
        (
            {"learner": {"gradient_noise": {"every": 0}}},
            "learner.gradient_noise.every: got 0, expected greater than or",
        ),
        ({"learner": {"gradient_noise": 5}}, "learner.gradient_noise: got 5, expected a mapping"),
        ({"learner": {"gradient_noise": {"evry": 5}}}, "learner.gradient_noise.evry: got 5, expected a known key; did"),
        ({"rollout": {"quantize": "int4"}}, "rollout.quantize: got 'int4', expected 'int8' or 'fp8'"),
        ({"rollout": {"quantize": True}}, "rollout.quantize: got True, expected 'int8' or 'fp8'"),
        ({"evaluation": {}}, "evaluation.every: expected a value: it is missing"),
        ({"evaluation": 20}, "evaluation: got 20, expected a mapping"),
        ({"evaluation": {"every": 0}}, "evaluation.every: got 0, expected greater than or equal to 1"),
        ({"evaluation": {"every": 5, "samples": 0}}, "evaluation.samples: got 0, expected greater than or equal to 1"),
        (
            {"evaluation": {"every": 5, "problems": 0}},
            "evaluation.problems: got 0, expected greater than or equal to 1",
        ),
        (
            {"evaluation": {"every": 5, "sample": 2}},
            "evaluation.sample: got 2, expected a known key; did you mean 'samp",
        ),
        ({"evaluation": {"every": 5, "sets": ["a.jsonl"]}}, "evaluation.sets: got ['a.jsonl'], expected a mapping"),
        (
            {"stability": {"on_collapse": "explode"}},
            "stability.on_collapse: got 'explode', expected 'stop' or 'record'",
        ),
        ({"stability": {"fraction": 2}}, "stability.fraction: got 2, expected less than or equal to 1"),
        ({"stability": {"fraction": -0.5}}, "stability.fraction: got -0.5, expected greater than or equal to 0"),
        ({"stability": {"short_ratio": 1.5}}, "stability.short_ratio: got 1.5, expected less than or equal to 1"),
        ({"stability": {"smoothing": 0}}, "stability.smoothing: got 0, expected greater than 0"),
        ({"stability": {"patience": 0}}, "stability.patience: got 0, expected greater than or equal to 1"),
        ({"stability": {"min_reward": -1.0}}, "stability.min_reward: got -1.0, expected greater than or equal to 0"),
        ({"stability": {"max_mismatch": 0}}, "stability.max_mismatch: got 0, expected greater than 0"),
        ({"stability": {"patient": 3}}, "stability.patient: got 3, expected a known key; did you mean 'patience'?"),
        ({"scheduler": {"factor": 1.0}}, "scheduler.factor: got 1.0, expected less than 1"),
        ({"scheduler": {"factor": 1.5}}, "scheduler.factor: got 1.5, expected less than 1"),
        ({"scheduler": {"factor": 0}}, "scheduler.factor: got 0, expected greater than 0"),
        ({"scheduler": {"ratio": 0}}, "scheduler.ratio: got 0, expected greater than 0"),
        ({"scheduler": {"patience": 0}}, "scheduler.patience: got 0, expected greater than or equal to 1"),
        ({"scheduler": {"kind": "signal_triggered"}}, "scheduler.signal: expected a value: it is missing"),
        (
            {"scheduler": {"kind": "signal_triggered", "signal": "reward/mean", "threshold": "0.5"}},
            "scheduler.threshold: got '0.5', expected a valid number",
        ),
        (
            {"scheduler": {"kind": "signal_triggered", "signal": "reward/mean", "threshold": True}},
            "scheduler.threshold: got True, expected a valid number",
        ),
        ({"shadow": {"a": {"kind": "magic"}}}, "shadow.a.kind: got 'magic', expected a kind out of 'constant'"),
        (
            {"shadow": {"a": {"kind": "constant", "lr": -1.0}}},
            "shadow.a.lr: got -1.0, expected greater than or equal to",
        ),
        (
            {"shadow": {"a": {"kind": "step", "period": 5, "fctor": 0.1}}},
            "shadow.a.fctor: got 0.1, expected a known key; ",
        ),
        (
            {"shadow": {"a": {"kind": "linear", "warmup_steps": 10}}},
            "shadow.a.warmup_steps: got 10, expected less than total_steps, which is 10",
        ),
        ({"shadow": {"a": 3}}, "shadow.a: got 3, expected a mapping"),
        ({"shadow": {"a/b": {"kind": "constant"}}}, f"shadow: got 'a/b', expected {NAME}"),
        (
            {"shadow": {"a.b": {"kind": "cosine", "warmup_steps": 10}}},
            "shadow.a.b.warmup_steps: got 10, expected less than total_steps, which is 10",
        ),
        (
            {"shadow": {"a.b": {"kind": "signal_triggered", "signal": "x"}}},
            "shadow.a.b.signal: got 'x', expected a metric that this run knows",
        ),
    ],
)
def test_a_mistake_in_what_a_run_measures_is_told_with_field_value_and_expectation(
    file: Path, changes: dict[str, Any], said: str
) -> None:
    assert mistake(file, changes).startswith(said)


MATHS = {"kind": "math", "train": "train.jsonl"}
SETS = {"test": "test.jsonl"}


@pytest.mark.parametrize("sets", [{}, SETS, {"aime-24": "a.parquet", "aime_25": "b.parquet"}])
def test_a_task_of_files_is_evaluated_on_the_sets_that_are_named_and_made_up_problems_on_their_own(
    file: Path, sets: dict[str, str]
) -> None:
    task = MATHS if sets else {"kind": "arithmetic"}
    config = resolved(file, {"task": task, "evaluation": {"every": 5, "samples": 2, "sets": sets}})
    assert config.evaluation is not None
    assert config.evaluation.names() == (tuple(sets) or ("held_out",))
    keys = signal_keys(config.learner, config.evaluation)
    assert {key.split("/")[1] for key in keys if key.startswith("eval/")} == set(sets or ["held_out"])


def test_a_task_of_files_needs_no_evaluation(file: Path) -> None:
    assert resolved(file, {"task": MATHS}).evaluation is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"task": MATHS, "evaluation": {"every": 5}},
            "evaluation.sets: expected at least one set: `name: file`, each",
        ),
        (
            {"task": MATHS, "evaluation": {"every": 5, "sets": {}}},
            "evaluation.sets: got {}, expected at least one set: `name: file`, each",
        ),
        (
            {"evaluation": {"every": 5, "sets": SETS}},
            "evaluation.sets: got {'test': 'test.jsonl'}, expected no files: this task holds problems out itself",
        ),
        (
            {"task": MATHS, "evaluation": {"every": 5, "sets": {"train": "a.jsonl"}}},
            "evaluation.sets.train: got 'a.jsonl', expected another name: this one stands for what is trained on",
        ),
        (
            {"task": MATHS, "evaluation": {"every": 5, "sets": {"a/b": "a.jsonl"}}},
            "evaluation.sets: got 'a/b', expected a name of up to 100 letters, digits, '.', '_' and '-', a letter or",
        ),
        (
            {"task": MATHS, "evaluation": {"every": 5, "sets": {"test": 3}}},
            "evaluation.sets.test: got 3, expected a valid string",
        ),
        (
            {"evaluation": {"every": 5, "samples": 2, "temperature": 0}},
            "evaluation.samples: got 2, expected 1 at temperature 0, where all samples are the same",
        ),
        (
            {"evaluation": {"every": 5, "temperature": -1.0}},
            "evaluation.temperature: got -1.0, expected greater than or equal to 0",
        ),
        (
            {"task": {**MATHS, "overlong": {"buffer": 9}}},
            "task.overlong.buffer: got 9, expected at most rollout.max_response_tokens: 8",
        ),
        ({"record_rollouts": {}}, "record_rollouts.every: expected a value: it is missing"),
        ({"record_rollouts": {"every": 0}}, "record_rollouts.every: got 0, expected greater than or equal to 1"),
        ({"export": {"dtype": "int8"}}, "export.dtype: got 'int8', expected 'float32', 'bfloat16' or 'float16'"),
        ({"export": True}, "export: got True, expected a mapping"),
    ],
)
def test_a_mistake_in_what_a_run_reads_and_leaves_is_told_with_field_value_and_expectation(
    file: Path, changes: dict[str, Any], said: str
) -> None:
    assert mistake(file, changes).startswith(said)


def test_a_buffer_as_long_as_a_response_is_accepted(file: Path) -> None:
    assert resolved(file, {"task": {"kind": "arithmetic", "overlong": {"buffer": 8}}}).task.overlong is not None


def test_shadow_policies_are_policies_like_the_active_one(file: Path) -> None:
    shadow = {
        "watch": {"kind": "signal_triggered", "signal": "gradient/noise_scale", "threshold": 5.0},
        "half": {"kind": "constant", "lr": 5e-7},
    }
    assert resolved(file, {"shadow": shadow}).shadow == {
        "watch": SignalTriggeredConfig(signal="gradient/noise_scale", threshold=5.0),
        "half": ConstantConfig(lr=5e-7),
    }


NOT_ESTIMATED = {"gradient_noise": {"every": None}}
# A key that a run does not have, the learner block of that run, and what the key may have been meant to be.
NEVER_LOGGED: list[Any] = [
    pytest.param("mismatch/log_ppl_abs_dif", {}, "mismatch/log_ppl_abs_diff", id="misspelt"),
    pytest.param("log_ppl_abs_diff", {}, "mismatch/log_ppl_abs_diff", id="without its area"),
    pytest.param("time/step", {}, None, id="time"),
    pytest.param("throughput/tokens_per_s", {}, None, id="throughput"),
    pytest.param("gradient/update_norm_ratio", {}, "gradient/norm", id="known only after the decision"),
    pytest.param("scheduler/lr", {}, None, id="the decision itself"),
    pytest.param("eval/held_out/avg@1", {}, None, id="no evaluation"),
    pytest.param("correction/weight_max", {}, None, id="no correction"),
    pytest.param("gradient/noise_scale", NOT_ESTIMATED, "gradient/nonfinite", id="no noise estimated"),
]
BLOCKS = {
    "scheduler": lambda policy: {"scheduler": policy},
    "shadow.watch": lambda policy: {"shadow": {"watch": policy}},
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("key", "learner", "close"), NEVER_LOGGED)
def test_a_policy_on_a_key_that_the_run_will_never_log_is_refused_with_those_there_are(
    file: Path, block: str, key: str, learner: dict[str, Any], close: str | None
) -> None:
    known = signal_keys(resolved(file, {"learner": learner}).learner, evaluation=None)
    assert key not in known
    with pytest.raises(ConfigError) as raised:
        read(file, {"learner": learner, **BLOCKS[block]({"kind": "signal_triggered", "signal": key})})
    hint = f"did you mean {close!r}? " if close else ""
    assert str(raised.value) == (
        f"{file}: {block}.signal: got {key!r}, expected a metric that this run knows when it decides the rate; "
        f"{hint}one of: {', '.join(known)}"
    )


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("eval/held_out/avg@4", {"evaluation": {"every": 10, "samples": 4}}),
        ("correction/weight_max", {"learner": {"correction": {"kind": "token_tis"}}}),
        ("gradient/noise_scale", {"learner": {"gradient_noise": {"every": 7}}}),
        ("mismatch/log_ppl_abs_diff", {}),
        ("response/length_mean_kept", {}),
    ],
)
def test_a_policy_on_a_key_that_the_run_logs_is_accepted(
    file: Path, block: str, key: str, changes: dict[str, Any]
) -> None:
    config = resolved(file, {**changes, **BLOCKS[block]({"kind": "signal_triggered", "signal": key})})
    policy = config.scheduler if block == "scheduler" else config.shadow["watch"]
    assert policy.build(config.steps).signals == (key,)


def test_an_evaluation_with_other_samples_logs_another_key(file: Path) -> None:
    changes = {
        "evaluation": {"every": 10, "samples": 4},
        "scheduler": {"kind": "signal_triggered", "signal": "eval/held_out/avg@1"},
    }
    said = mistake(file, changes)
    assert said.startswith("scheduler.signal: got 'eval/held_out/avg@1', expected a metric that this run knows")
    assert "did you mean 'eval/held_out/avg@4'?" in said


def test_an_arm_that_takes_a_signal_away_from_its_policy_is_refused(file: Path) -> None:
    changes = {
        "scheduler": {"kind": "signal_triggered", "signal": "gradient/noise_scale"},
        "arms": {"quiet": {"learner": {"gradient_noise": {"every": None}}}},
    }
    # The key stands in the file and not in the arm, so it is the file's field that is named.
    assert mistake(file, changes).startswith("scheduler.signal: got 'gradient/noise_scale', expected a metric")
    changes = {"arms": {"watched": {"scheduler": {"kind": "signal_triggered", "signal": "time/step"}}}}
    assert mistake(file, changes).startswith("arms.watched.scheduler.signal: got 'time/step', expected a metric")


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
