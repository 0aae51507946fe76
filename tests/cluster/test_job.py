"""What a driver knows of its Ray job, and what it makes of it."""

import json
from pathlib import Path

import pytest

from cluster.job import DESCRIBED, Job, job_tags

WORKING_DIR = {"working_dir": "gcs://_ray_pkg_2e044ee047ba0557.zip", "env_vars": {"RAY_worker_niceness": "0"}}


def describe(monkeypatch: pytest.MonkeyPatch, runtime_env: dict[str, object] | None) -> None:
    """As Ray tells the driver of a submitted job."""
    metadata = {"job_submission_id": "raysubmit_Hq3Crap863PTzVbD", "job_name": "raysubmit_Hq3Crap863PTzVbD"}
    monkeypatch.setenv(DESCRIBED, json.dumps({"runtime_env": runtime_env, "metadata": metadata}))


def test_a_process_that_was_not_submitted_has_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DESCRIBED, raising=False)
    assert Job.of_this_process() is None
    assert job_tags() == {}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"metadata": null}', '{"metadata": {"job_name": "x"}}'])
def test_what_only_looks_like_a_job_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(DESCRIBED, text)
    assert Job.of_this_process() is None


def test_the_submission_id_is_a_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    describe(monkeypatch, WORKING_DIR)
    assert job_tags() == {"ray_submission_id": "raysubmit_Hq3Crap863PTzVbD"}


def test_code_comes_with_the_job_if_it_is_what_was_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cases = [(WORKING_DIR, tmp_path, True), (WORKING_DIR, tmp_path / "x", False), (None, tmp_path, False)]
    cases += [({"py_modules": ["gcs://a.zip"]}, tmp_path / "x", True)]
    for runtime_env, root, comes in cases:
        describe(monkeypatch, runtime_env)
        job = Job.of_this_process()
        assert job is not None and job.has_code(root) is comes


def test_what_is_written_into_the_copy_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    describe(monkeypatch, WORKING_DIR)
    job = Job.of_this_process()
    assert job is not None
    assert job.loses(Path("runs")) and job.loses(tmp_path / "copy" / "runs")
    assert not job.loses(tmp_path / "runs") and not job.loses(Path("../runs"))
    describe(monkeypatch, None)  # then it stands where Ray was started
    job = Job.of_this_process()
    assert job is not None and not job.loses(Path("runs"))
