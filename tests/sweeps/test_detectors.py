"""The detectors file: what it holds, and what is wrong with it in one line."""

from pathlib import Path

import pytest

from actors.lr_policies import LengthTriggeredConfig, SignalTriggeredConfig
from orchestrator.config_errors import ConfigError
from orchestrator.stability import StabilityConfig
from sweeps.detectors import Detectors

GOOD = """\
length: {kind: length_triggered, ratio: 1.5}
noise: {kind: signal_triggered, signal: gradient/noise_scale}
stability: {patience: 5}
"""


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
        ("it: {signal: a/b}", "it: got {'signal': 'a/b'}, expected a mapping with a 'kind'"),
        ("it: 3", "it: got 3, expected "),
        ("it: {kind: signal_triggered}", "it.signal: expected a value: it is missing"),
        ("it: {kind: linear}", "it.total_steps: expected a value (total_steps is missing"),
        ("it: {kind: constant}\nstability: {patience: no}", "stability.patience: got 'no', expected a valid integer"),
        ("it: {kind: constant}\nstability: []", "stability: got [], expected a mapping"),
        ("stability: {patience: 3}", "expected at least one detector, such as length: {kind: length_triggered}"),
        ("- a", "got ['a'], expected a mapping with text keys at the top level"),
    ],
)
def test_a_mistake_is_told_with_file_field_value_and_what_was_expected(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read(text, tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'd.yaml'}: {told}")


def test_yaml_that_is_none_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"d\.yaml:2: expected YAML"):
        read("a: {kind: constant}\nb: {", tmp_path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: expected a readable file"):
        Detectors.read(tmp_path / "gone.yaml")
