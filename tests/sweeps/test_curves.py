"""A recorded run: what its folder holds, column by column, and what a damaged folder is answered with."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from orchestrator.config_errors import ConfigError
from orchestrator.run.folder import CONFIG, METRICS
from orchestrator.stability import StabilityConfig
from sweeps.curves import Curves, read_rows, read_stability


def curves(rows: Sequence[dict[str, float]]) -> Curves:
    steps = np.array([int(row["step"]) for row in rows], np.int64)
    return Curves(arm="decay", seed=0, steps=steps, rows=tuple(rows))


def test_a_run_folder_is_read_line_by_line(tmp_path: Path) -> None:
    rows = [{"step": 3, "reward/mean": 0.5}, {"step": 7, "scheduler/event/surge": 1.0}]
    (tmp_path / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = Curves.read(tmp_path, "decay", 1)
    assert (run.arm, run.seed, run.steps.tolist(), run.rows) == ("decay", 1, [3, 7], tuple(rows))
    assert run.stability == StabilityConfig()


def test_a_run_that_recorded_nothing_has_no_steps(tmp_path: Path) -> None:
    assert len(Curves.read(tmp_path, "decay", 0).steps) == 0
    (tmp_path / METRICS).write_text('{"step": 0, "rew')
    assert len(Curves.read(tmp_path, "decay", 0).steps) == 0


def test_a_last_line_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    whole = '{"step": 0, "a": 1.0}\n{"step": 1, "a": 2.0}\n'
    for length in range(len(whole) + 1):
        (tmp_path / METRICS).write_text(whole[:length])
        assert [row["step"] for row in read_rows(tmp_path / METRICS)] == list(range(whole[:length].count("\n")))


def test_blank_lines_are_passed_over_and_count(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_bytes(b'\n{"step": 0, "a": 1.0}\r\n \t\r\n\n{"step": 1}\n\n')
    assert read_rows(tmp_path / METRICS) == [{"step": 0, "a": 1.0}, {"step": 1}]
    (tmp_path / METRICS).write_text('{"step": 0}\n\n{"step": 0}\n')
    with pytest.raises(ConfigError, match=r"line 3: step: got 0, expected more than 0$"):
        read_rows(tmp_path / METRICS)


def test_an_absent_metric_is_not_a_number() -> None:
    run = curves([{"step": 0, "a": 1.0}, {"step": 1}, {"step": 2, "a": 3.0}])
    np.testing.assert_array_equal(run.column("a"), [1.0, np.nan, 3.0])
    assert np.isnan(run.column("no such metric")).all()


def test_events_come_with_their_steps_in_order() -> None:
    run = curves([{"step": 4, "scheduler/event/surge": 1.0, "scheduler/event/decay": 1.0, "a": 2.0}, {"step": 9}])
    assert run.events() == [(4, "surge"), (4, "decay")]


def test_a_run_is_judged_by_the_settings_it_was_made_with(tmp_path: Path) -> None:
    rows = [{"step": step, "gradient/nonfinite": 1.0} for step in range(12)]
    (tmp_path / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    verdict = Curves.read(tmp_path, "decay", 0).verdict()
    assert verdict is not None
    assert verdict.step == 9
    (tmp_path / CONFIG).write_text("name: demo\nsteps: 12\nstability: {patience: 3}\n")
    verdict = Curves.read(tmp_path, "decay", 0).verdict()
    assert verdict is not None
    assert verdict.step == 2
    (tmp_path / CONFIG).write_text("name: demo\n")
    assert Curves.read(tmp_path, "decay", 0).stability == StabilityConfig()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"step": 1, "a"', 'line 2: got \'{"step": 1, "a"\', expected a JSON object (EOF while parsing an object)'),
        ("[1, 2]", "line 2: got [1, 2], expected a JSON object"),
        ("[" * 100_000, f"line 2: got '{'[' * 76}..., expected a JSON object (recursion limit exceeded)"),
        ('{"a": 1.0}', "line 2: step: expected a step number, 0 or more"),
        ('{"step": -1}', "line 2: step: got -1, expected a step number, 0 or more"),
        ('{"step": 1.5}', "line 2: step: got 1.5, expected a step number, 0 or more"),
        ('{"step": true}', "line 2: step: got True, expected a step number, 0 or more"),
        ('{"step": 0}', "line 2: step: got 0, expected more than 0"),
        ('{"step": 1, "a": "high"}', "line 2: a: got 'high', expected a finite number"),
        ('{"step": 1, "a": NaN}', "line 2: a: got nan, expected a finite number"),
        ('{"step": 1, "a": null}', "line 2: a: got null, expected a finite number"),
        (f'{{"step": 1{"0" * 30}}}', f"line 2: step: got 1{'0' * 30}, expected a step number, 0 or more"),
        (f'{{"step": {2**63}}}', f"line 2: step: got {2**63}, expected a step number, 0 or more"),
        (f'{{"step": 1, "a": 1{"0" * 400}}}', f"line 2: a: got 1{'0' * 76}..., expected a finite number"),
        (f'{{"step": 1, "a": 1{"0" * 5000}}}', "line 2: got "),
        ('{"step": 1, "a": 1e400}', "line 2: a: got inf, expected a finite number"),
        ('{"step": 1, "\\ud800": 1}', "line 2: got "),
    ],
)
def test_a_malformed_line_is_told_with_its_number_and_what_was_expected(line: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / METRICS
    path.write_text(f'{{"step": 0}}\n{line}\n')
    with pytest.raises(ConfigError) as error:
        read_rows(path)
    assert str(error.value).startswith(f"{path}: {told}")
    assert "\n" not in str(error.value)


def test_metrics_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_bytes(b"\xff\xfe\n")
    with pytest.raises(ConfigError, match=r"metrics.jsonl: line 1: got .*, expected a JSON object"):
        read_rows(tmp_path / METRICS)


def test_metrics_that_are_no_file_are_told(tmp_path: Path) -> None:
    (tmp_path / METRICS).mkdir()
    with pytest.raises(ConfigError, match=r"metrics.jsonl: expected a readable file \(Is a directory\)$"):
        Curves.read(tmp_path, "decay", 0)


@pytest.mark.parametrize(
    ("config", "finished"),
    [(None, True), ("name: demo", True), ("steps: 3", True), ("steps: 2", True), ("steps: 4", False)],
)
def test_a_run_is_finished_at_the_last_step_that_its_config_asks_for(
    config: str | None, finished: bool, tmp_path: Path
) -> None:
    (tmp_path / METRICS).write_text('{"step": 0}\n{"step": 2}\n')
    if config is not None:
        (tmp_path / CONFIG).write_text(config)
    assert Curves.read(tmp_path, "decay", 0).finished == finished


def test_a_run_that_recorded_nothing_has_not_finished(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text("steps: 1\n")
    assert not Curves.read(tmp_path, "decay", 0).finished


@pytest.mark.parametrize("steps", ["0", "many", "1.5", "true"])
def test_a_config_whose_steps_are_no_number_is_told(steps: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(f"steps: {steps}\n")
    with pytest.raises(ConfigError, match=r"config.yaml: steps: got .*, expected "):
        Curves.read(tmp_path, "decay", 0)


def test_a_wrong_setting_is_told_with_its_field() -> None:
    with pytest.raises(ConfigError, match=r"^c.yaml: stability.patience: got 0, expected greater than or equal to 1$"):
        read_stability({"stability": {"patience": 0}}, "c.yaml")
    with pytest.raises(ConfigError, match=r"^c.yaml: stability.pacience: got 3, .* did you mean 'patience'\?$"):
        read_stability({"stability": {"pacience": 3}}, "c.yaml")
