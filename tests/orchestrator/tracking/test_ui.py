"""Which database the interface shows, and that looking for one makes none."""

import socket
from pathlib import Path

import pytest

from orchestrator.config_errors import ConfigError
from orchestrator.tracking.database import make_database
from orchestrator.tracking.ui import find_store, show


def refusal(uri: str | None, runs: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        find_store(uri, runs)
    return str(caught.value)


def test_the_database_among_the_runs_is_shown_with_the_files_beside_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    make_database(uri)
    assert find_store(None, tmp_path) == (uri, tmp_path / "mlartifacts")
    assert find_store(uri, Path("nowhere")) == (uri, None)


def test_a_folder_without_a_database_is_refused_and_gets_none(tmp_path: Path) -> None:
    for runs in (tmp_path, tmp_path / "nowhere"):
        expected = (
            "expected a folder with runs, their mlflow.db among them; for another database there is --tracking-uri"
        )
        assert refusal(None, runs).startswith("--runs: got ") and refusal(None, runs).endswith(expected)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_database_of_mlflows_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    assert refusal(None, tmp_path).endswith("expected a database of MLflow's (no such table: runs)")
    assert (tmp_path / "mlflow.db").stat().st_size == 0
    assert refusal(f"sqlite:///{tmp_path}/gone.db", tmp_path).endswith("expected a database file that is there")
    assert not (tmp_path / "gone.db").exists()


def test_a_port_that_is_taken_is_refused_before_anything_starts() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match=r"--port: got \d+, expected"),
    ):
        show("sqlite://", None, taken.getsockname()[1], tell=pytest.fail)
