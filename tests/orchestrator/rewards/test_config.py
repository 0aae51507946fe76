"""Settings of rewards: what is refused is refused in words, and importing them loads nothing."""

import pytest
from pydantic import TypeAdapter, ValidationError

from orchestrator.rewards.config import (
    ArithmeticReward,
    ExactReward,
    FormatConfig,
    LimitsConfig,
    MathReward,
    OverlongConfig,
    PythonReward,
    RegexReward,
    RewardConfig,
)

ADAPTER: TypeAdapter[RewardConfig] = TypeAdapter(RewardConfig)


@pytest.mark.parametrize(
    ("tree", "config"),
    [
        ({"kind": "arithmetic"}, ArithmeticReward()),
        ({"kind": "exact", "ignore_case": True}, ExactReward(ignore_case=True)),
        ({"kind": "regex", "pattern": "a(b)"}, RegexReward(pattern="a(b)")),
        ({"kind": "math"}, MathReward()),
        ({"kind": "python", "function": "my.rewards:length"}, PythonReward(function="my.rewards:length")),
    ],
)
def test_the_kind_says_which_reward_it_is(tree: dict[str, object], config: RewardConfig) -> None:
    assert ADAPTER.validate_python(tree) == config


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match="'arithmetic', 'exact', 'regex', 'math', 'python'"):
        ADAPTER.validate_python({"kind": "maths"})


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", r"a regular expression \(missing \), unterminated subpattern at position 0\)"),
        ("*", "nothing to repeat"),
        ("a{99999999999}", "a regular expression"),
        ("", "at least 1 character"),
    ],
)
def test_a_pattern_that_is_none_is_refused_with_the_place(pattern: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RegexReward(pattern=pattern)
    with pytest.raises(ValidationError, match=said):
        FormatConfig(pattern=pattern, bonus=0.1)


@pytest.mark.parametrize("function", ["", "module", "module:", ":function", "a b:c", "a.:c", "a:b.c", "a:b:c", "/a:b"])
def test_a_function_is_a_module_a_colon_and_a_name(function: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        PythonReward(function=function)


@pytest.mark.parametrize(
    "settings", [{"time_limit_s": 0.0}, {"time_limit_s": 3601.0}, {"memory_mib": 255}, {"workers": 0}]
)
def test_limits_that_limit_nothing_or_everything_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        LimitsConfig.model_validate(settings)


def test_processes_are_one_per_core_and_eight_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(3)))
    assert LimitsConfig().num_workers() == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    assert LimitsConfig().num_workers() == 8
    assert LimitsConfig(workers=12).num_workers() == 12


@pytest.mark.parametrize("settings", [{"buffer": 0}, {"buffer": 10, "penalty": -1.0}])
def test_a_penalty_that_rewards_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        OverlongConfig.model_validate(settings)
