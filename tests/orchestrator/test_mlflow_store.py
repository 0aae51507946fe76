"""Every call of the MLflow store, on a real database file."""

import math
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.mlflow_store import LONGEST_PARAM, METRICS_PER_CALL, PARAMS_PER_CALL, MlflowStore, flatten
from orchestrator.records import StepRecord


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def store(folder: Path) -> MlflowStore:
    return MlflowStore(f"sqlite:///{folder / 'mlflow.db'}", folder)


@pytest.fixture(scope="module")
def client(folder: Path, store: MlflowStore) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def step(number: int, metrics: dict[str, float]) -> StepRecord:
    return StepRecord(step=number, time_ms=1_764_000_000_000 + number, metrics=metrics, events=())


def test_a_run_is_made_in_an_experiment_that_is_made_once(store: MlflowStore, client: MlflowClient) -> None:
    one, other = (store.create_run("made once", name, {"arm": name}, None) for name in ("a", "b"))
    runs = [client.get_run(run_id) for run_id in (one, other)]
    assert [run.info.run_name for run in runs] == ["a", "b"]
    assert [run.data.tags["arm"] for run in runs] == ["a", "b"]
    assert len({run.info.experiment_id for run in runs}) == 1
    assert not any("mlflow.parentRunId" in run.data.tags for run in runs)


def test_a_child_names_its_parent(store: MlflowStore, client: MlflowClient) -> None:
    parent = store.create_run("e", "parent", {}, None)
    child = store.create_run("e", "child", {}, parent)
    assert client.get_run(child).data.tags["mlflow.parentRunId"] == parent


def test_params_are_flattened_cut_and_sent_whatever_their_number(store: MlflowStore, client: MlflowClient) -> None:
    run_id = store.create_run("e", "params", {}, None)
    many = {f"key{i}": i for i in range(PARAMS_PER_CALL + 1)}
    store.log_params(run_id, {"many": many, "long": "x" * (LONGEST_PARAM + 1), "none": None})
    params = client.get_run(run_id).data.params
    assert len(params) == PARAMS_PER_CALL + 3
    assert params["many.key100"] == "100"
    assert params["long"] == "x" * LONGEST_PARAM
    assert params["none"] == "None"


def test_steps_keep_their_number_time_and_every_metric(store: MlflowStore, client: MlflowClient) -> None:
    run_id = store.create_run("e", "steps", {}, None)
    store.log_steps(run_id, [step(0, {"reward/mean": 0.25, "loss": -1.5}), step(7, {"reward/mean": 0.75})])
    history = client.get_metric_history(run_id, "reward/mean")
    assert [(point.step, point.value, point.timestamp) for point in history] == [
        (0, 0.25, 1_764_000_000_000),
        (7, 0.75, 1_764_000_000_007),
    ]
    assert client.get_run(run_id).data.metrics["loss"] == -1.5


def test_a_metric_whose_name_mlflow_does_not_allow_stops_no_other(store: MlflowStore, client: MlflowClient) -> None:
    run_id = store.create_run("e", "evaluated", {}, None)
    store.log_steps(run_id, [step(0, {"reward/mean": 0.25, "eval/aime24/avg@32": 0.5})])
    assert client.get_run(run_id).data.metrics == {"reward/mean": 0.25, "eval/aime24/avg_at_32": 0.5}


def test_more_points_than_mlflow_takes_at_once_are_sent_in_several_calls(
    store: MlflowStore, client: MlflowClient
) -> None:
    run_id = store.create_run("e", "many", {}, None)
    store.log_steps(run_id, [step(i, {"a": float(i)}) for i in range(METRICS_PER_CALL + 1)])
    assert client.get_run(run_id).data.metrics["a"] == METRICS_PER_CALL


def test_a_metric_that_is_not_finite_stops_no_other(store: MlflowStore, client: MlflowClient) -> None:
    run_id = store.create_run("e", "nan", {}, None)
    store.log_steps(run_id, [step(0, {"bad": math.nan, "good": 1.0})])
    assert client.get_run(run_id).data.metrics["good"] == 1.0


def test_tags_are_added_to_those_there_are_and_change_them(store: MlflowStore, client: MlflowClient) -> None:
    run_id = store.create_run("e", "tagged", {"arm": "decay", "collapsed": "false"}, None)
    store.set_tags(run_id, {"collapsed": "true", "collapse.reason": "reward"})
    tags = client.get_run(run_id).data.tags
    assert (tags["arm"], tags["collapsed"], tags["collapse.reason"]) == ("decay", "true", "reward")


def test_a_file_is_copied_below_the_artifacts_folder(
    store: MlflowStore, client: MlflowClient, tmp_path: Path, folder: Path
) -> None:
    figure = tmp_path / "figure.png"
    figure.write_bytes(b"png")
    run_id = store.create_run("with a figure", "artifact", {}, None)
    store.log_artifact(run_id, figure)
    assert [file.path for file in client.list_artifacts(run_id)] == ["figure.png"]
    assert [copy.read_bytes() for copy in folder.rglob("figure.png")] == [b"png"]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_as_it_is_told_to(store: MlflowStore, client: MlflowClient, status: str) -> None:
    run_id = store.create_run("e", "ended", {}, None)
    assert client.get_run(run_id).info.status == "RUNNING"
    store.end_run(run_id, status)
    assert client.get_run(run_id).info.status == status


def test_flattening_joins_keys_with_dots_and_leaves_lists_alone() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": []}, "e": [{"f": 1}]}) == {"a.b.c": 1, "a.d": [], "e": [{"f": 1}]}
    assert flatten({}) == {}
