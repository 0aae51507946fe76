"""MLflow's sqlite file: whole or not there, whoever dies and however many make it at once."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.tracking import database
from orchestrator.tracking.database import make_database

MAKE = """
import sys
from orchestrator.tracking.database import make_database
print(flush=True)
make_database(sys.argv[1])
"""
ROOT = Path(__file__).parents[3]


def test_a_process_killed_while_it_makes_the_file_leaves_none_that_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with subprocess.Popen([sys.executable, "-c", MAKE, f"sqlite:///{path}"], cwd=ROOT, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while not any(file.stat().st_size for file in tmp_path.glob("*.new")):
            time.sleep(0.001)
        process.kill()  # MLflow is making its tables
    assert not path.exists()
    make_database(f"sqlite:///{path}")
    assert MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()


def test_many_at_once_make_one_file_and_leave_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "mlflow.db"
    processes = [
        subprocess.Popen([sys.executable, "-c", MAKE, f"sqlite:///{path}"], cwd=ROOT, stdout=-1) for _ in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
    assert [*path.parent.iterdir()] == [path]
    assert MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "sqlite://", "sqlite:///:memory:", "databricks", "no-such://x"])
def test_what_names_no_new_file_is_left_alone(uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    make_database(uri)
    assert not [*tmp_path.iterdir()]


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"as it was")
    make_database(f"sqlite:///{path}")
    assert path.read_bytes() == b"as it was"


def test_a_file_system_without_links_gets_the_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(database.os, "link", link)
    path = tmp_path / "mlflow.db"
    make_database(f"sqlite:///{path}")
    assert [*tmp_path.iterdir()] == [path]
