"""The bench commands: what they are called, what they refuse, what they write."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.config_errors import ConfigError
from sweeps.bench_cli import bench_app

NAMES = ("metrics", "memory", "decide", "sync", "step", "staleness", "sweep", "peer")


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_help_with_an_example(name: str) -> None:
    done = CliRunner().invoke(bench_app, [name, "--help"])
    assert done.exit_code == 0
    assert "Example: evenkeel bench" in done.output


def test_an_unknown_workload_is_refused_before_anything_starts() -> None:
    done = CliRunner().invoke(bench_app, ["step", "--workload", "huge"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == "--workload: got 'huge', expected demo or bigger"


def test_a_sweep_file_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    done = CliRunner().invoke(bench_app, ["sweep", "--file", str(tmp_path / "none.yaml")])
    assert isinstance(done.exception, ConfigError)
    assert "none.yaml" in str(done.exception)


def test_a_small_benchmark_prints_a_table_and_writes_all_measurements(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    done = CliRunner().invoke(bench_app, ["metrics", "--sequences", "2", "--pairs", "3", "--json", str(path)])
    assert done.exit_code == 0, done.output
    assert "exponential" in done.output
    written = json.loads(path.read_text())
    assert written["benchmark"] == "metrics"
    assert len(written["figures"][0]["pairs"]["ours"]) == 3
