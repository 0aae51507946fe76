"""Does a space fit its experiment: paths, kinds, edges and metrics, all before the first trial."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import yaml_files
from orchestrator.config_errors import ConfigError
from orchestrator.experiment_file import DEFAULT_ARM, ExperimentFile, merge
from sweeps.space import Choices, Dimension, FloatRange, exists, in_order
from sweeps.space_check import corners_of, leaf_paths, switches
from sweeps.sweep_file import SweepFile

EXPERIMENT: dict[str, Any] = {
    "name": "e",
    "model": {"path": "embedded"},
    "task": {"kind": "arithmetic"},
    "rollout": {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": 8},
    "scheduler": {"kind": "length_triggered", "lr": 1e-4, "warmup_steps": 3},
    "shadow": {"late": {"kind": "step", "period": 9}},
    "evaluation": {"every": 5, "samples": 4},
    "steps": 20,
}
SWEEP: dict[str, Any] = {"experiment": "e.yaml", "objective": {"metric": "reward/mean"}, "trials": 4}
RATIO = {"scheduler.ratio": {"kind": "float", "low": 1.2, "high": 3.0}}
BOTH = {"scheduler.kind": {"kind": "categorical", "choices": ["length_triggered", "signal_triggered"]}}
SIGNAL = {
    "scheduler.signal": {
        "kind": "categorical",
        "choices": ["reward/mean"],
        "when": {"scheduler.kind": "signal_triggered"},
    }
}


def read(folder: Path, space: dict[str, Any], changes: dict[str, Any] | None = None) -> SweepFile:
    (folder / "e.yaml").write_text(yaml_files.dump(EXPERIMENT))
    path = folder / "s.yaml"
    path.write_text(yaml_files.dump(merge({**SWEEP, "space": space}, changes or {})))
    return SweepFile.read(path)


def mistake(folder: Path, space: dict[str, Any], changes: dict[str, Any] | None = None) -> str:
    """The message about a sweep with this space, without the file's name."""
    with pytest.raises(ConfigError) as raised:
        read(folder, space, changes)
    message = str(raised.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder / 's.yaml'}: ")


def number(low: float, high: float, **more: Any) -> dict[str, Any]:
    kind = "int" if isinstance(low, int) and isinstance(high, int) else "float"
    return {"kind": kind, "low": low, "high": high, **more}


@pytest.mark.parametrize(
    ("path", "proposed"),
    [
        ("scheduler.rati", "'scheduler.ratio'"),
        ("scheduler.ratio.low", "'scheduler.ratio'"),
        ("ratio", "such as 'model.path'"),
        ("scheduler", "'scheduler.lr' or 'scheduler.warmup_steps' or 'scheduler.factor'"),
        ("scheduler.threshold", "did you mean 'scheduler."),
        ("learner.optimizer.eps_", "'learner.optimizer.eps'"),
        ("learner.optimiser.eps", "'learner.optimizer.eps'"),
        ("shadow.late.perio", "'shadow.late.period'"),
        ("shadow.early.period", "'shadow.late.period'"),
        ("evaluation.sample", "'evaluation.samples'"),
        ("export.dtipe", "'export.dtype'"),
        ("model..path", "'model.path'"),
    ],
)
def test_an_unknown_path_is_refused_with_the_nearest_ones(tmp_path: Path, path: str, proposed: str) -> None:
    said = mistake(tmp_path, {path: number(1, 2)})
    assert said.startswith(f"space.{path}: expected a path to a value in the experiment; ")
    assert proposed in said


def test_paths_of_all_chosen_kinds_exist(tmp_path: Path) -> None:
    threshold = {"scheduler.threshold": number(0.1, 0.2, when={"scheduler.kind": "signal_triggered"})}
    assert read(tmp_path, BOTH | SIGNAL | threshold).shares
    cooldown = {"scheduler.coldown": number(1, 2, when={"scheduler.kind": "signal_triggered"})}
    assert "'scheduler.cooldown_steps'" in mistake(tmp_path, BOTH | SIGNAL | cooldown)


def test_a_path_is_left_out_where_the_kind_does_not_know_it(tmp_path: Path) -> None:
    assert mistake(tmp_path, BOTH | SIGNAL | {"scheduler.threshold": number(0.1, 0.2)}) == (
        "space.scheduler.threshold.when: expected conditions that leave it out where "
        "scheduler.kind is length_triggered, which has no such key"
    )


def test_a_path_may_lead_into_a_block_that_is_not_there_yet(tmp_path: Path) -> None:
    correction = {
        "learner.correction.kind": {"kind": "categorical", "choices": ["none", "token_tis"]},
        "learner.correction.cap": number(1.5, 3.0, when={"learner.correction.kind": "token_tis"}),
    }
    sweep = read(tmp_path, correction | {"record_rollouts.every": number(1, 5)})
    config = sweep.trial_config({"learner.correction.kind": "token_tis", "learner.correction.cap": 2.5})
    assert config.learner.correction.model_dump() == {"kind": "token_tis", "cap": 2.5}


@pytest.mark.parametrize(
    ("path", "dimension", "said"),
    [
        ("scheduler.factor", number(0.5, 1.5), "got 1.5, expected less than 1"),
        ("scheduler.factor", number(0.0, 0.5), "got 0.0, expected greater than 0"),
        ("scheduler.patience", number(0, 3), "got 0, expected greater than or equal to 1"),
        ("scheduler.patience", number(1.0, 3.0), "got 1.0, expected a valid integer"),
        (
            "scheduler.anchor",
            {"kind": "categorical", "choices": ["start", "end", "surge"]},
            "got 'end', expected 'start'",
        ),
        (
            "scheduler.kind",
            {"kind": "categorical", "choices": ["constant", "magic"]},
            "got 'magic', expected a kind out",
        ),
        (
            "scheduler.kind",
            {"kind": "categorical", "choices": ["constant", "step"]},
            "got 'step', expected scheduler.period: a value",
        ),
        ("learner.optimizer.kind", {"kind": "categorical", "choices": ["adamw", "sgd"]}, "got 'sgd', expected 'adamw'"),
        ("rollout.group_size", number(1, 4), "got 1, expected at least 2 responses per prompt"),
        ("shadow.late.period", number(0, 4), "got 0, expected greater than or equal to 1"),
        ("learner.grad_clip", {"kind": "categorical", "choices": [1.0, "none"]}, "got 'none', expected a valid number"),
    ],
)
def test_both_ends_and_every_choice_are_within_the_schema(
    tmp_path: Path, path: str, dimension: dict[str, Any], said: str
) -> None:
    assert mistake(tmp_path, {path: dimension}).startswith(f"space.{path}: {said}")


def test_a_wrong_kind_is_told_before_the_paths_that_it_does_not_know(tmp_path: Path) -> None:
    kind = {"scheduler.kind": {"kind": "categorical", "choices": ["length_triggered", "length_trigered"]}}
    said = "space.scheduler.kind: got 'length_trigered', expected a kind out of 'constant'"
    assert mistake(tmp_path, RATIO | kind).startswith(said)
    unknown = {"schedular.kind": {"kind": "categorical", "choices": ["constant"]}}
    said = "space.schedular.kind: expected a path to a value in the experiment; did you mean 'scheduler.kind'"
    assert mistake(tmp_path, RATIO | unknown).startswith(said)


def test_what_breaks_a_rule_with_another_field_names_both(tmp_path: Path) -> None:
    said = mistake(
        tmp_path, {"rollout.max_response_tokens": number(4, 8)}, {"changes": {"task": {"overlong": {"buffer": 5}}}}
    )
    assert said.startswith("space.rollout.max_response_tokens: got 4, expected task.overlong.buffer: at most rollout.")


def test_two_ranges_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    changes = {"changes": {"learner": {"correction": {"kind": "token_mask"}}}}
    space = {"learner.correction.lo": number(0.1, 2.0), "learner.correction.hi": number(1.0, 5.0)}
    assert mistake(tmp_path, space, changes).startswith("space.learner.correction.")
    read(tmp_path, {**space, "learner.correction.lo": number(0.1, 0.9)}, changes)


def test_a_signal_that_the_run_never_has_is_refused(tmp_path: Path) -> None:
    signal = merge(SIGNAL, {"scheduler.signal": {"choices": ["reward/mean", "reward/men"]}})
    said = mistake(tmp_path, BOTH | signal)
    assert said.startswith("space.scheduler.signal: got 'reward/men', expected a metric that this run knows when it")
    assert "did you mean 'reward/mean'?" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"objective": {"metric": "eval/heldout/avg@4"}},
            "objective.metric: got 'eval/heldout/avg@4', expected a metric that the runs log; did you mean "
            "'eval/held_out/avg@4' or ",
        ),
        (
            {"objective": {"metric": "eval/held_out/avg@4"}, "changes": {"evaluation": None}},
            "objective.metric: got 'eval/held_out/avg@4', expected a metric of a step, as the experiment has no `eval",
        ),
        (
            {"constraints": [{"metric": "mismatch/log_ppl", "at_most": 1}]},
            "constraints.0.metric: got 'mismatch/log_ppl', expected a metric that the runs log; did you mean",
        ),
        (
            {"objective": {"metric": "xyz"}},
            "objective.metric: got 'xyz', expected a metric that the runs log; such as 'reward/mean'",
        ),
    ],
)
def test_a_metric_that_is_never_logged_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert mistake(tmp_path, RATIO, changes).startswith(said)


@pytest.mark.parametrize(
    "metric",
    [
        "eval/held_out/pass@4",
        "gradient/norm",
        "throughput/tokens_per_s",
        "stability/collapsed",
        "scheduler/shadow/late/lr",
    ],
)
def test_whatever_is_logged_can_be_the_objective(tmp_path: Path, metric: str) -> None:
    pruner = {"pruner": {"kind": "median"}}
    assert read(tmp_path, RATIO, {"objective": {"metric": metric}} | pruner).config.objective.metric == metric


def test_a_metric_must_be_logged_by_every_trial(tmp_path: Path) -> None:
    kind = {"learner.correction.kind": {"kind": "categorical", "choices": ["token_tis", "none"]}}
    constraints = {"constraints": [{"metric": "correction/ess", "at_least": 0.5}]}
    assert mistake(tmp_path, RATIO | kind, constraints) == (
        "constraints.0.metric: got 'correction/ess', expected a metric that every trial logs, "
        "also where learner.correction.kind is none"
    )
    samples = {"evaluation.samples": number(4, 8)}
    objective = {"objective": {"metric": "eval/held_out/avg@4"}}
    said = "expected a metric that every trial logs, also where evaluation.samples is 8"
    assert mistake(tmp_path, RATIO | samples, objective).endswith(said)


def test_the_paths_of_an_experiment_are_those_of_its_kinds(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(yaml_files.dump(EXPERIMENT))
    config = ExperimentFile.read(tmp_path / "e.yaml").resolve(DEFAULT_ARM)
    paths = set(leaf_paths(config.model_dump(mode="json")))
    assert {"scheduler.kind", "scheduler.anchor", "shadow.late.period", "learner.correction.kind", "steps"} <= paths
    assert {"learner.optimizer.betas", "task.overlong.buffer", "export.mlflow", "seeds"} <= paths
    assert paths.isdisjoint({"scheduler", "scheduler.signal", "shadow", "shadow.late", "arms", "evaluation.sets"})


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Dimension]:
    """Choices on earlier choices, and ranges on any of them."""
    found: dict[str, Dimension] = {}
    for i in range(draw(st.integers(1, 3))):
        on = draw(st.sampled_from([None, *found]))
        when: dict[str, Any] = {} if on is None else {on: [draw(st.sampled_from("ab"))]}
        found[f"c{i}"] = Choices(kind="categorical", choices=["a", "b"], when=when)
    for i in range(draw(st.integers(1, 3))):
        on = draw(st.sampled_from([None, *(path for path in found if path.startswith("c"))]))
        when = {} if on is None else {on: [draw(st.sampled_from("ab"))]}
        found[f"r{i}"] = FloatRange(kind="float", low=i, high=i + 1, when=when)
    return found


@given(spaces())
def test_corners_are_trials_and_every_edge_is_in_one(space: dict[str, Dimension]) -> None:
    found = [params for chosen in switches(in_order(space)) for params, _ in corners_of(space, chosen)]
    for params in found:
        assert set(params) == {path for path, dimension in space.items() if exists(dimension, params)}
    seen = {(path, value) for params in found for path, value in params.items()}
    assert seen == {(path, edge) for path, found in space.items() for edge in found.edges() if reachable(space, path)}


@given(spaces())
def test_any_two_ranges_meet_at_all_their_corners(space: dict[str, Dimension]) -> None:
    found = [params for chosen in switches(in_order(space)) for params, _ in corners_of(space, chosen)]
    for params in found:
        for one, other in pairs([path for path in params if path.startswith("r")]):
            met = {(p[one], p[other]) for p in found if one in p and other in p}
            assert met == {(a, b) for a in space[one].edges() for b in space[other].edges()}


def pairs(paths: list[str]) -> Iterator[tuple[str, str]]:
    yield from ((one, other) for i, one in enumerate(paths) for other in paths[:i])


def reachable(space: dict[str, Dimension], path: str) -> bool:
    """Whether any choice lets it exist: one on a choice that is there itself always can."""
    return all(reachable(space, other) for other in space[path].when)
