"""The detectors file: what it holds, and what is wrong with it in one line."""

from pathlib import Path

import numpy as np
import pytest

from actors.lr_policies import LengthTriggeredConfig, SignalTriggeredConfig
from orchestrator.config_errors import ConfigError
from orchestrator.stability import StabilityConfig
from sweeps.curves import Curves
from sweeps.detectors import Detectors, check_signals

GOOD = """\
length: {kind: length_triggered, ratio: 1.5}
noise: {kind: signal_triggered, signal: gradient/noise_scale}
stability: {patience: 5}
"""


WATCHES = "expected a policy that watches a metric"


def read(text: str, folder: Path) -> Detectors:
    (folder / "d.yaml").write_text(text)
    return Detectors.read(folder / "d.yaml")


def test_every_key_but_stability_is_a_detector(tmp_path: Path) -> None:
    assert read(GOOD, tmp_path) == Detectors(
        policies={
            "length": LengthTriggeredConfig(ratio=1.5),
            "noise": SignalTriggeredConfig(signal="gradient/noise_scale"),
        },
        stability=StabilityConfig(patience=5),
    )


def test_without_stability_each_run_is_judged_by_its_own_settings(tmp_path: Path) -> None:
    assert read("length: {kind: length_triggered}", tmp_path).stability is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "length: {kind: length_triggered, ratios: 2}",
            "length.ratios: got 2, expected a known key; did you mean 'ratio'?",
        ),
        ("length: {kind: length_triggered, ratio: 0}", "length.ratio: got 0, expected greater than 0"),
        ("it: {kind: magic}", "it.kind: got 'magic', expected a kind out of 'constant', "),
        ("it: {signal: a/b}", "it.kind: expected a kind out of 'constant', 'linear', "),
        ("it: 3", "it: got 3, expected "),
        ("it: {kind: signal_triggered}", "it.signal: expected a value: it is missing"),
        ("it: {kind: signal_triggered, signal: ''}", "it.signal: got '', expected text of 1 or more characters"),
        ("it: {kind: constant}", f"it.kind: got 'constant', {WATCHES}: length_triggered or signal_triggered"),
        ("it: {kind: linear}", f"it.kind: got 'linear', {WATCHES}: length_triggered or signal_triggered"),
        ("it: {kind: cosine}", f"it.kind: got 'cosine', {WATCHES}: length_triggered or signal_triggered"),
        ("it: {kind: step, period: 3}", f"it.kind: got 'step', {WATCHES}: length_triggered or signal_triggered"),
        (
            "it: {kind: cosine, total_steps: 9, warmup_steps: 9}",
            "it.warmup_steps: got 9, expected less than total_steps, which is 9",
        ),
        ("it: {kind: length_triggered, surge_step: 10}", f"it.surge_step: got 10, {WATCHES}: without surge_step"),
        ("it: {kind: length_triggered, surge_step: 0}", f"it.surge_step: got 0, {WATCHES}: without surge_step"),
        (
            "it: {kind: length_triggered, decay_period: 20}",
            f"it.decay_period: got 20, {WATCHES}: without decay_period, or with anchor: surge",
        ),
        (
            "length: {kind: length_triggered}\nstability: {patience: no}",
            "stability.patience: got 'no', expected a valid",
        ),
        ("length: {kind: length_triggered}\nstability: []", "stability: got [], expected a mapping"),
        ("stability: {patience: 3}", "expected at least one detector, such as length: {kind: length_triggered}"),
        ("- a", "got ['a'], expected a mapping with text keys at the top level"),
    ],
)
def test_a_mistake_is_told_with_file_field_value_and_what_was_expected(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read(text, tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'd.yaml'}: {told}")


def test_a_period_that_begins_with_the_surge_leaves_a_detector(tmp_path: Path) -> None:
    detectors = read("it: {kind: length_triggered, decay_period: 20, anchor: surge}", tmp_path)
    assert list(detectors.policies) == ["it"]


def run(**metrics: float) -> Curves:
    return Curves(arm="a", seed=0, steps=np.array([0, 1]), rows=({"step": 0}, {"step": 1, **metrics}))


def test_a_signal_that_one_run_has_recorded_once_is_enough(tmp_path: Path) -> None:
    runs = [run(**{"response/length_mean": 10.0}), run(**{"gradient/noise_scale": 3.0})]
    check_signals(read(GOOD, tmp_path).policies, runs, "d.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "it: {kind: signal_triggered, signal: gradient/noise_scal}",
            "it.signal: got 'gradient/noise_scal', expected a metric that a run has recorded; "
            "did you mean 'gradient/noise_scale'? one of: gradient/noise_scale, reward/mean",
        ),
        (
            "it: {kind: signal_triggered, signal: step}",
            "it.signal: got 'step', expected a metric that a run has recorded; "
            "one of: gradient/noise_scale, reward/mean",
        ),
        (
            "it: {kind: length_triggered}",
            "it: got 'response/length_mean', expected a metric that a run has recorded; "
            "one of: gradient/noise_scale, reward/mean",
        ),
    ],
)
def test_a_signal_that_no_run_has_recorded_is_told_with_those_there_are(text: str, told: str, tmp_path: Path) -> None:
    runs = [run(**{"reward/mean": 0.5}), run(**{"gradient/noise_scale": 3.0})]
    with pytest.raises(ConfigError) as error:
        check_signals(read(text, tmp_path).policies, runs, "d.yaml")
    assert str(error.value) == f"d.yaml: {told}"


def test_yaml_that_is_none_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"d\.yaml:2: expected YAML"):
        read("a: {kind: constant}\nb: {", tmp_path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: expected a readable file"):
        Detectors.read(tmp_path / "gone.yaml")
