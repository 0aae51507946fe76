"""A database is looked at before anything connects to it that would make what is missing."""

import pytest

from orchestrator.config_errors import ConfigError
from orchestrator.tracking.database_check import check_database


def refusal(uri: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check_database(uri)
    return str(caught.value)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "runs", "file:///tmp", "databricks", "redis://127.0.0.1"])
def test_what_is_no_database_is_refused(uri: str) -> None:
    expected = "expected the address of a database (sqlite, postgresql, mysql, mssql)"
    assert refusal(uri) == f"tracking URI: {uri}: {expected}"


def test_a_server_that_does_not_answer_is_told_in_one_line_without_its_password() -> None:
    told = refusal("postgresql+psycopg://ada:secret@127.0.0.1:1/runs")
    assert told.startswith(
        "tracking URI: postgresql+psycopg://127.0.0.1:1/runs: expected a database of MLflow's that answers ("
    )
    assert "refused" in told and "secret" not in told and "\n" not in told


def test_a_driver_that_is_not_installed_and_a_bad_address_are_told() -> None:
    assert "No module named 'pg8000'" in refusal("postgresql+pg8000://127.0.0.1:1/runs")
    assert refusal("postgresql+psycopg://127.0.0.1:port/runs").startswith(
        "tracking URI: postgresql+psycopg://127.0.0.1:port"
    )
