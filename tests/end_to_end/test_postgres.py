"""The PostgreSQL server of these tests holds an Optuna study, and is gone afterwards."""

import socket
from urllib.parse import urlsplit

import optuna
import pytest
from postgres import postgres_server

from orchestrator.config_errors import ConfigError
from orchestrator.tracking.database_check import check_database
from orchestrator.tracking.store import MlflowStore

pytestmark = pytest.mark.slow


def test_two_storages_on_one_server_share_a_study() -> None:
    with postgres_server() as url:
        storages = [optuna.storages.RDBStorage(url) for _ in range(2)]
        first = optuna.create_study(storage=storages[0], study_name="s", direction="maximize")
        second = optuna.load_study(storage=storages[1], study_name="s")
        for study in (first, second, first):
            trial = study.ask()
            study.tell(trial, trial.suggest_float("x", 0, 1))
        assert [trial.number for trial in second.trials] == [0, 1, 2]
        assert first.best_value == second.best_value == max(trial.params["x"] for trial in first.trials)
        for storage in storages:
            storage.engine.dispose()


def test_it_is_reached_at_loopback_alone_and_stops() -> None:
    with postgres_server() as url:
        address = urlsplit(url)
        assert address.hostname == "127.0.0.1" and address.port is not None
        socket.create_connection((address.hostname, address.port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port), timeout=5)


def test_mlflow_keeps_runs_there_that_are_found_without_making_a_table() -> None:
    with postgres_server() as url:
        with pytest.raises(
            ConfigError, match=r'a database of MLflow\'s that answers \(.*relation "runs" does not exist'
        ):
            check_database(url)
        store = MlflowStore(url, None)
        store.create_run("e", "r", {}, None)
        check_database(url)
