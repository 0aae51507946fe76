"""Policies see only what their run logs when it decides; others are refused before it starts."""

from pathlib import Path
from typing import Any

import pytest
from experiment_files import mistake, read, resolved

from actors.lr_policies import ConstantConfig, SignalTriggeredConfig
from orchestrator.config_errors import ConfigError
from orchestrator.metric_keys import signal_keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "e.yaml"


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
