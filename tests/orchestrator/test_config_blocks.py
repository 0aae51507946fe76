"""What a run corrects, measures, reads and leaves, as an experiment file says it, and every mistake in it."""

from pathlib import Path
from typing import Any

import pytest
from experiment_files import mistake, read, resolved

from actors.corrections import (
    CorrectionConfig,
    GeometricMask,
    NoCorrection,
    SequenceMask,
    SequenceTis,
    TokenMask,
    TokenTis,
)
from cluster.config import RestartsConfig
from orchestrator.config import CheckpointConfig
from orchestrator.config_errors import NAME
from orchestrator.evaluation import EvaluationConfig
from orchestrator.metric_keys import signal_keys
from orchestrator.stability import StabilityConfig


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "e.yaml"


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
        ({"checkpoint": {"every": 0}}, "checkpoint.every: got 0, expected greater than or equal to 1"),
        ({"checkpoint": {"every": 2.5}}, "checkpoint.every: got 2.5, expected a valid integer"),
        ({"checkpoint": {"every": None}}, "checkpoint.every: got null, expected a valid integer"),
        ({"checkpoint": {"keep": 0}}, "checkpoint.keep: got 0, expected greater than or equal to 1"),
        ({"checkpoint": {"keep": "all"}}, "checkpoint.keep: got 'all', expected a valid integer"),
        ({"checkpoint": {"evry": 20}}, "checkpoint.evry: got 20, expected a known key; did you mean 'every'?"),
        ({"checkpoint": False}, "checkpoint: got False, expected a mapping"),
        ({"checkpoint": 20}, "checkpoint: got 20, expected a mapping"),
    ],
)
def test_a_mistake_in_what_a_run_reads_and_leaves_is_told_with_field_value_and_expectation(
    file: Path, changes: dict[str, Any], said: str
) -> None:
    assert mistake(file, changes).startswith(said)


def test_a_buffer_as_long_as_a_response_is_accepted(file: Path) -> None:
    assert resolved(file, {"task": {"kind": "arithmetic", "overlong": {"buffer": 8}}}).task.overlong is not None


def test_checkpoints_are_made_unless_the_file_says_null(file: Path) -> None:
    assert resolved(file, {}).checkpoint == CheckpointConfig(every=100, keep=3)
    assert resolved(file, {"checkpoint": {"every": 20}}).checkpoint == CheckpointConfig(every=20, keep=3)
    for text in ("null", "~"):
        assert resolved(file, {}, [f"checkpoint={text}"]).checkpoint is None
    arms = {"checkpoint": {"keep": 1}, "arms": {"a": {"checkpoint": {"every": 5}}, "b": {"checkpoint": None}}}
    assert read(file, arms).resolve("a").checkpoint == CheckpointConfig(every=5, keep=1)
    assert read(file, arms).resolve("b").checkpoint is None


@pytest.mark.parametrize(
    ("every", "last", "due"),
    [(1, 3, [0, 1, 2, 3]), (2, 6, [1, 3, 5, 6]), (5, 9, [4, 9]), (100, 3, [3]), (3, 0, [0])],
)
def test_a_checkpoint_is_due_after_every_so_many_steps_and_after_the_last(
    every: int, last: int, due: list[int]
) -> None:
    config = CheckpointConfig(every=every)
    assert [step for step in range(last + 1) if config.due(step, last)] == due


def test_lost_workers_are_replaced_unless_the_file_says_otherwise(file: Path) -> None:
    usual = resolved(file, {}).cluster
    assert usual.restarts == RestartsConfig(rollout=3, learner=3, scheduler=3)
    assert usual.silence_timeout_s == 60.0
    cluster = resolved(file, {"cluster": {"restarts": {"learner": 0}, "silence_timeout_s": 5}}).cluster
    assert cluster.restarts == RestartsConfig(rollout=3, learner=0, scheduler=3)
    assert cluster.silence_timeout_s == 5.0


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({"silence_timeout_s": 0}, "silence_timeout_s: got 0, expected greater than 0"),
        ({"silence_timeout_s": -1.5}, "silence_timeout_s: got -1.5, expected greater than 0"),
        ({"silence_timeout_s": float("inf")}, "silence_timeout_s: got inf, expected "),
        ({"silence_timeout_s": None}, "silence_timeout_s: got null, expected a valid number"),
        ({"silence_timeout_s": "60"}, "silence_timeout_s: got '60', expected a valid number"),
        ({"silence_timeout_s": 2e9}, "silence_timeout_s: got 2000000000.0, expected less than or equal to "),
        ({"silence_timeout": 5}, "silence_timeout: got 5, expected a known key; did you mean 'silence_timeout_s'?"),
        ({"restarts": {"rollout": -1}}, "restarts.rollout: got -1, expected greater than or equal to 0"),
        ({"restarts": {"learner": 1.5}}, "restarts.learner: got 1.5, expected a valid integer"),
        ({"restarts": {"scheduler": True}}, "restarts.scheduler: got True, expected a valid integer"),
        ({"restarts": {"scheduler": None}}, "restarts.scheduler: got null, expected a valid integer"),
        ({"restarts": {"learners": 3}}, "restarts.learners: got 3, expected a known key; did you mean 'learner'?"),
        ({"restarts": 3}, "restarts: got 3, expected a mapping"),
        ({"restarts": None}, "restarts: got null, expected a mapping"),
    ],
)
def test_a_mistake_in_how_long_workers_are_waited_for_and_replaced_is_told(
    file: Path, cluster: dict[str, Any], said: str
) -> None:
    assert mistake(file, {"cluster": cluster}).startswith(f"cluster.{said}")


def test_what_happens_to_lost_workers_is_no_matter_of_an_arm(file: Path) -> None:
    said = mistake(file, {"arms": {"a": {"cluster": {"restarts": {"learner": 0}}}}})
    assert said.startswith("arms.a.cluster: got {'restarts': {'learner': 0}}, expected something an arm may change")
