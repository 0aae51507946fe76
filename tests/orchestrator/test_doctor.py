"""What doctor says of the disk: how large the checkpoints of a run are, and whether they fit."""

import io
import shutil
from pathlib import Path

from rich.console import Console

from orchestrator.config import CheckpointConfig
from orchestrator.disk import size_text
from orchestrator.doctor import check_disk
from orchestrator.model_files import embedded_model

KEEP = CheckpointConfig(every=10, keep=3)


def told(config: CheckpointConfig | None, model: str, folder: Path) -> tuple[str, list[str]]:
    """What is printed, and the problems."""
    out = io.StringIO()
    problems = check_disk(config, model, folder, Console(file=out, width=60))
    return out.getvalue(), problems


def test_size_number_sum_and_free_room_are_one_line(tmp_path: Path) -> None:
    printed, problems = told(KEEP, embedded_model(), tmp_path / "runs")
    line, free = printed.split("; free here: ")
    assert line == "checkpoints: 3.43 MiB each, 3 kept and one being written: 13.7 MiB"
    assert free.split()[1] == size_text(shutil.disk_usage(tmp_path).free).split()[1]
    assert problems == []
    assert not (tmp_path / "runs").exists()


def test_checkpoints_that_do_not_fit_are_a_problem(tmp_path: Path) -> None:
    _, problems = told(CheckpointConfig(every=10, keep=2**31 - 1), embedded_model(), tmp_path)
    assert len(problems) == 1
    assert problems[0].startswith(f"{tmp_path}: 7026 TiB are needed for checkpoints and ")


def test_a_size_that_is_not_known_is_said_and_no_problem(tmp_path: Path) -> None:
    printed, problems = told(KEEP, "no-such/model", tmp_path)
    assert printed.startswith("checkpoints: 3 kept and one being written; no telling how large: ")
    assert printed.count("\n") == 1
    assert problems == []


def test_a_run_without_checkpoints_needs_no_room(tmp_path: Path) -> None:
    assert told(None, embedded_model(), tmp_path) == ("checkpoints: none are made\n", [])


def test_a_storage_is_named_and_only_that_of_a_disk_can_be_full(tmp_path: Path) -> None:
    printed, problems = told(CheckpointConfig(storage="s3://bucket/all"), embedded_model(), tmp_path)
    assert printed.startswith("checkpoints: 3 kept and one being written, in s3://bucket/all; each learner needs room ")
    assert problems == []
    printed, problems = told(CheckpointConfig(storage=str(tmp_path)), embedded_model(), Path("elsewhere"))
    assert "13.7 MiB; free there: " in printed
    assert problems == []
