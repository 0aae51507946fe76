"""What holds for every kind of policy: config, decision, step order, weight of the import."""

import doctest
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

import actors.lr_policies
from actors.lr_policies import ConstantConfig, LrDecision, PolicyConfig, SchedulerConfig

SCHEDULER: TypeAdapter[PolicyConfig] = TypeAdapter(SchedulerConfig)
MINIMAL: list[dict[str, Any]] = [
    {"kind": "constant"},
    {"kind": "linear", "total_steps": 100},
    {"kind": "cosine", "total_steps": 100},
    {"kind": "step", "period": 10},
    {"kind": "length_triggered"},
    {"kind": "signal_triggered", "signal": "gradient/noise_scale"},
]
every_kind = pytest.mark.parametrize("mapping", MINIMAL, ids=lambda mapping: mapping["kind"])


def test_a_decision_is_frozen_and_named() -> None:
    decision = LrDecision(step=3, lr=1e-6, events=("decay",))
    with pytest.raises(AttributeError):
        decision.lr = 0.0  # type: ignore[misc]


@every_kind
def test_the_kind_picks_the_class_and_the_class_builds_its_own_policy(mapping: dict[str, Any]) -> None:
    config = SCHEDULER.validate_python(mapping)
    assert type(config).__name__.removesuffix("Config").lower() == mapping["kind"].replace("_", "")
    policy = config.build(total_steps=100)
    assert type(policy).__name__.removesuffix("Policy") == type(config).__name__.removesuffix("Config")
    assert policy.observe(0, {}) == LrDecision(step=0, lr=1e-6, events=())


@every_kind
def test_a_config_survives_json(mapping: dict[str, Any]) -> None:
    config = SCHEDULER.validate_python(mapping)
    assert SCHEDULER.validate_json(SCHEDULER.dump_json(config)) == config


@every_kind
def test_a_config_is_frozen_and_refuses_unknown_fields(mapping: dict[str, Any]) -> None:
    config = SCHEDULER.validate_python(mapping)
    with pytest.raises(ValidationError):
        config.lr = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="lerning_rate"):
        SCHEDULER.validate_python({**mapping, "lerning_rate": 1e-6})


@every_kind
@pytest.mark.parametrize("value", ["1e-6", True, None, -1e-9, float("nan"), float("inf"), [1e-6]])
def test_an_lr_that_is_no_learning_rate_is_refused_by_name(mapping: dict[str, Any], value: object) -> None:
    with pytest.raises(ValidationError, match="lr"):
        SCHEDULER.validate_python({**mapping, "lr": value})


@pytest.mark.parametrize("value", ["3", True, 2.5, 2.0, -1, None])
def test_a_warmup_that_is_no_number_of_steps_is_refused_by_name(value: object) -> None:
    with pytest.raises(ValidationError, match="warmup_steps"):
        SCHEDULER.validate_python({"kind": "constant", "warmup_steps": value})


def test_an_unknown_kind_is_refused_with_the_kinds_that_exist() -> None:
    with pytest.raises(ValidationError, match=r"'exponential'.*'constant'.*'signal_triggered'"):
        SCHEDULER.validate_python({"kind": "exponential"})


def test_the_refused_value_is_named() -> None:
    with pytest.raises(ValidationError, match=r"factor\n.*input_value=1\.5"):
        SCHEDULER.validate_python({"kind": "length_triggered", "factor": 1.5})


def test_whole_numbers_are_fine_where_a_float_is_wanted() -> None:
    config = SCHEDULER.validate_python({"kind": "step", "period": 2, "lr": 0, "min_lr_ratio": 1})
    assert isinstance(config.lr, float)


@every_kind
def test_an_lr_of_zero_stays_zero(mapping: dict[str, Any]) -> None:
    policy = SCHEDULER.validate_python({**mapping, "lr": 0.0}).build(total_steps=100)
    assert [policy.observe(step, {}).lr for step in range(5)] == [0.0] * 5


@every_kind
def test_steps_must_grow_and_may_start_anywhere_and_leave_gaps(mapping: dict[str, Any]) -> None:
    policy = SCHEDULER.validate_python(mapping).build(total_steps=100)
    policy.observe(40, {})
    policy.observe(47, {})
    for step in (47, 46):
        with pytest.raises(ValueError, match=f"step {step} does not come after step 47"):
            policy.observe(step, {})
    assert policy.observe(48, {}).step == 48


@every_kind
def test_a_negative_step_is_refused(mapping: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="step -1 is negative"):
        SCHEDULER.validate_python(mapping).build(total_steps=100).observe(-1, {})


@every_kind
def test_a_restored_policy_refuses_the_steps_it_has_seen(mapping: dict[str, Any]) -> None:
    config = SCHEDULER.validate_python(mapping)
    policy = config.build(total_steps=100)
    policy.observe(7, {})
    restored = config.build(total_steps=100)
    restored.load_state_dict(json.loads(json.dumps(policy.state_dict())))
    with pytest.raises(ValueError, match="step 7 does not come after step 7"):
        restored.observe(7, {})


def test_warmup_rises_in_equal_parts_and_ends_at_one() -> None:
    config = ConstantConfig(warmup_steps=4)
    assert [config.warm(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert ConstantConfig().warm(0) == 1.0


def test_importing_the_policies_loads_nothing_heavy() -> None:
    check = (
        "import sys, actors.lr_policies;"
        "heavy = {'numpy', 'torch', 'ray', 'vllm', 'mlflow', 'optuna'} & sys.modules.keys();"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    root = Path(actors.lr_policies.__path__[0]).parents[1]
    subprocess.run([sys.executable, "-c", check], cwd=root, check=True, timeout=60)


MODULES = [module.name for module in pkgutil.iter_modules(actors.lr_policies.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(f"actors.lr_policies.{name}"))
    assert not results.failed


@every_kind
def test_every_policy_class_shows_an_example(mapping: dict[str, Any]) -> None:
    policy = type(SCHEDULER.validate_python(mapping).build(total_steps=100))
    assert ">>> policy = " in (policy.__doc__ or "")
