"""The CSV files beside the page."""

import csv
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config_errors import ConfigError
from sweeps.html_report.csv_files import write_curves, write_trials


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_drawn_value_has_a_line(make_run: Any, tmp_path: Path) -> None:
    write_curves([make_run("a", steps=2), make_run("b", steps=4)], tmp_path / "c.csv")
    found = lines(tmp_path / "c.csv")
    assert found[0] == {"arm": "a", "seed": "0", "step": "0", "key": "reward/mean", "value": "0.1"}
    assert len([line for line in found if line["arm"] == "a"]) == 2 * 6
    assert [line["step"] for line in found if line["key"] == "eval/held_out/avg@4"] == ["3"]


def test_every_trial_has_a_line_with_the_columns_of_the_table(make_study: Any, tmp_path: Path) -> None:
    write_trials(make_study(1, (2, {"state": "failed", "value": None, "reason": "a\nb"})), tmp_path / "t.csv")
    first, second = lines(tmp_path / "t.csv")
    assert (first["value"], first["scheduler.ratio"], first["feasible"]) == ("0.51", "1.6", "True")
    assert (second["value"], second["reason"]) == ("", "a\nb")


def test_a_file_that_cannot_be_written_is_named(make_study: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone/t\.csv: expected a file that can be written"):
        write_trials(make_study(), tmp_path / "gone" / "t.csv")
