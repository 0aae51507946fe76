"""What the commands have in common: where runs are kept, and what is said of it."""

import json
from pathlib import Path

import pytest
from experiment_files import TREE

from cluster.job import DESCRIBED
from orchestrator.cli import tracking
from orchestrator.config import ExperimentConfig

CONFIG = ExperimentConfig.model_validate(TREE)


def said(capsys: pytest.CaptureFixture[str], runs: Path) -> str:
    with tracking(CONFIG, runs):
        pass
    return capsys.readouterr().out


def test_runs_that_a_job_would_lose_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    assert said(capsys, Path("runs")) == ""
    described = {"runtime_env": {"working_dir": "gcs://a.zip"}, "metadata": {"job_submission_id": "raysubmit_1"}}
    monkeypatch.setenv(DESCRIBED, json.dumps(described))
    warning = f"warning: runs go to {tmp_path / 'copy' / 'runs'}, a copy that Ray removes some time after the job"
    assert said(capsys, Path("runs")).startswith(warning)
    assert said(capsys, tmp_path / "runs") == ""
