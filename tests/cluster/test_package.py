"""What is packed for a job, and what stays at home."""

from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import pytest

from cluster import package as module
from cluster.package import PACKAGES, ROOT, TooLarge, pack


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder with an experiment, its data, and much else."""
    folder = tmp_path / "project"
    for name in (
        *("tiny.yaml", "data/train.jsonl", "data/raw/huge.bin", "notes.log", ".git/HEAD", ".venv/bin/python"),
        *("runs/tiny/metrics.jsonl", "results/tiny/metrics.jsonl", "mlflow.db", "my_rewards.py", "secret/key"),
        *("__pycache__/my_rewards.pyc", "package/__pycache__/x.pyc", "package/x.py"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".gitignore").write_text("data/\n")
    (folder / ".rayignore").write_text("secret/\n")
    return folder


def packed(folder: Path, needed: Sequence[Path] = (), left_out: Sequence[str] = ()) -> set[str]:
    """Names in the package of a folder, without our own packages."""
    made = pack(folder, needed, left_out, folder.parent / "package.zip")
    with ZipFile(made.path) as file:
        names = set(file.namelist())
    assert made.num_files == len(names)
    assert made.num_bytes == made.path.stat().st_size
    return {name for name in names if not name.startswith(tuple(f"{name}/" for name in PACKAGES))}


def test_what_runs_leave_and_what_ignore_files_name_stays_here(project: Path) -> None:
    expected = {"tiny.yaml", "my_rewards.py", "package/x.py", ".gitignore", ".rayignore"}
    assert packed(project, left_out=["/results/"]) == expected


def test_what_the_experiment_needs_goes_in_any_case(project: Path) -> None:
    needed = [project / "data" / "train.jsonl", project / "secret"]
    assert packed(project, needed) >= {"data/train.jsonl", "secret/key", "results/tiny/metrics.jsonl"}


def test_the_files_arrive_as_they_are(project: Path) -> None:
    made = pack(project, [], [], project.parent / "package.zip")
    with ZipFile(made.path) as file:
        assert file.read("package/x.py") == b"package/x.py"


def test_our_packages_go_with_a_folder_that_is_not_our_checkout(project: Path) -> None:
    made = pack(project, [], [], project.parent / "package.zip")
    with ZipFile(made.path) as file:
        names = set(file.namelist())
    assert {"sweeps/__main__.py", "orchestrator/demo/model/config.json", "sweeps/html_report/page.html"} <= names
    assert not any("__pycache__" in name for name in names)


def test_our_checkout_is_small_and_has_what_a_job_imports(tmp_path: Path) -> None:
    made = pack(ROOT, [], [], tmp_path / "package.zip")
    with ZipFile(made.path) as file:
        names = set(file.namelist())
    assert {"sweeps/__main__.py", "examples/demo.yaml", "orchestrator/demo/model/model.safetensors"} <= names
    assert not {name.partition("/")[0] for name in names} & {".git", ".venv", "docs", "tests", "runs", ".mypy_cache"}
    assert made.num_bytes < 3 * 2**20


def test_the_same_files_make_the_same_package_whenever_they_were_written(project: Path) -> None:
    first = pack(project, [], [], project.parent / "first.zip").path.read_bytes()
    (project / "tiny.yaml").write_text("tiny.yaml")
    (project / "tiny.yaml").touch()
    assert pack(project, [], [], project.parent / "second.zip").path.read_bytes() == first


def test_too_much_is_refused_with_the_largest_files(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 3 * 2**20)
    (project / "weights.bin").write_bytes(bytes(4 * 2**20))
    with pytest.raises(TooLarge) as refused:
        pack(project, [], [], project.parent / "package.zip")
    assert refused.value.largest[0] == ("weights.bin", 4 * 2**20)
    assert str(refused.value) == "more than 3 MiB"
    assert not (project.parent / "package.zip").exists()
