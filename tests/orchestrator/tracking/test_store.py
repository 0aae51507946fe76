"""Every call of the MLflow store, on a real database file."""

import math
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from orchestrator.records import RunCard, StepRecord
from orchestrator.tracking.refusals import Refused
from orchestrator.tracking.step_batches import METRICS_PER_CALL
from orchestrator.tracking.store import EVERY_STEP, LONGEST_PARAM, PARAMS_PER_CALL, TAGS_PER_CALL, MlflowStore, flatten


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


def card(uid: str, experiment: str = "cards", **tags: str) -> RunCard:
    return RunCard(uid=uid, experiment=experiment, name="demo/decay/seed-0", tags=tags, params={})


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


def test_a_run_with_a_known_uid_is_found_again_and_runs_again(store: MlflowStore, client: MlflowClient) -> None:
    run_id = store.open_run(card("10", folder="a", arm="decay"), None)
    store.end_run(run_id, "FAILED")
    assert store.open_run(card("11"), None) != run_id
    assert store.open_run(card("10", experiment="another"), None) != run_id
    assert store.open_run(card("10", folder="b"), "f" * 32) == run_id
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("RUNNING", "demo/decay/seed-0")
    tags = run.data.tags
    assert (tags["folder"], tags["arm"], tags["evenkeel.uid"], tags["mlflow.parentRunId"]) == (
        "b",
        "decay",
        "10",
        "f" * 32,
    )


def test_of_two_runs_with_a_uid_the_one_in_use_goes_on_and_the_empty_one_is_deleted(
    store: MlflowStore, client: MlflowClient
) -> None:
    empty, used = (store.create_run("cards", "twin", {"evenkeel.uid": "12"}, None) for _ in range(2))
    store.log_steps(used, [step(0, {EVERY_STEP: 1.0})])
    assert store.open_run(card("12"), None) == used
    assert client.get_run(empty).info.lifecycle_stage == "deleted"
    assert client.get_run(used).info.lifecycle_stage == "active"


def test_a_run_that_was_deleted_is_made_anew(store: MlflowStore, client: MlflowClient) -> None:
    run_id = store.open_run(card("13"), None)
    client.delete_run(run_id)
    assert store.open_run(card("13"), None) != run_id


def test_an_experiment_that_another_process_makes_at_the_same_moment_is_used(
    store: MlflowStore, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()

    def find(name: str) -> str | None:
        asked.append(name)
        return None if len(asked) == 1 else real(name)

    real = store._find_experiment
    made = client.create_experiment("raced")
    monkeypatch.setattr(store, "_find_experiment", find)
    assert client.get_run(store.create_run("raced", "run", {}, None)).info.experiment_id == made


def test_params_that_changed_are_tags_and_the_others_are_kept(store: MlflowStore, client: MlflowClient) -> None:
    run_id = store.create_run("e", "resumed", {}, None)
    store.log_params(run_id, {"steps": 90, "rollout": {"workers": 2}})
    store.log_params(run_id, {"steps": 120, "rollout": {"workers": 2, "new": 1}})
    data = client.get_run(run_id).data
    assert data.params == {"steps": "90", "rollout.workers": "2", "rollout.new": "1"}
    assert {key: value for key, value in data.tags.items() if key.startswith("resumed.")} == {"resumed.steps": "120"}
    store.log_params(run_id, {"steps": 90})
    assert client.get_run(run_id).data.tags["resumed.steps"] == "90"


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


def test_a_step_is_there_wholly_or_not_at_all(store: MlflowStore, client: MlflowClient) -> None:
    run_id = store.create_run("e", "torn", {}, None)
    bad = {"no such name?": 1.0}
    with pytest.raises(MlflowException, match="Invalid value"):
        store.log_steps(run_id, [step(0, {EVERY_STEP: 1.0, "a": 1.0}), step(1, {EVERY_STEP: 1.0, **bad})])
    assert client.get_run(run_id).data.metrics == {}


def test_the_same_point_sent_again_is_kept_once_beside_new_ones(store: MlflowStore, client: MlflowClient) -> None:
    run_id = store.create_run("e", "again", {}, None)
    rows = [step(number, {EVERY_STEP: 1.0, "a": number / 3, "nan": math.nan, "inf": math.inf}) for number in range(40)]
    store.log_steps(run_id, rows[:25])
    store.log_steps(run_id, rows)
    store.log_steps(run_id, rows[10:])
    for key in rows[0].metrics:
        assert [point.step for point in client.get_metric_history(run_id, key)] == list(range(40))


def test_a_step_that_is_too_long_for_a_call_is_known_only_when_all_of_it_is_there(
    store: MlflowStore, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = store.create_run("e", "long", {}, None)
    long = step(7, {EVERY_STEP: 1.0, **{f"m{i}": 0.0 for i in range(METRICS_PER_CALL)}})
    calls = list[object]()

    def fail_second(*args: object, **kwargs: object) -> None:
        calls.append(kwargs)
        if len(calls) == 2:
            raise ConnectionError
        real(*args, **kwargs)

    real = store._client.log_batch
    monkeypatch.setattr(store._client, "log_batch", fail_second)
    with pytest.raises(ConnectionError):
        store.log_steps(run_id, [long])
    assert store.steps(run_id) == set()
    store.log_steps(run_id, [long])
    assert store.steps(run_id) == {7}
    assert len(client.get_metric_history(run_id, "m0")) == 1


def test_a_metric_that_is_not_finite_stops_no_other(store: MlflowStore, client: MlflowClient) -> None:
    run_id = store.create_run("e", "nan", {}, None)
    store.log_steps(run_id, [step(0, {"bad": math.nan, "good": 1.0})])
    assert client.get_run(run_id).data.metrics["good"] == 1.0


def test_tags_are_added_to_those_there_are_and_change_them(store: MlflowStore, client: MlflowClient) -> None:
    run_id = store.create_run("e", "tagged", {"arm": "decay", "collapsed": "false"}, None)
    store.set_tags(run_id, {"collapsed": "true", "collapse.reason": "reward"})
    tags = client.get_run(run_id).data.tags
    assert (tags["arm"], tags["collapsed"], tags["collapse.reason"]) == ("decay", "true", "reward")


def test_tags_are_set_whatever_their_number(store: MlflowStore, client: MlflowClient) -> None:
    run_id = store.create_run("e", "many tags", {}, None)
    store.set_tags(run_id, {f"t{i}": str(i) for i in range(TAGS_PER_CALL + 1)})
    assert client.get_run(run_id).data.tags[f"t{TAGS_PER_CALL}"] == str(TAGS_PER_CALL)


def test_a_file_that_cannot_be_copied_while_the_store_answers_is_refused(store: MlflowStore, tmp_path: Path) -> None:
    run_id = store.create_run("e", "no file", {}, None)
    with pytest.raises(Refused, match="no-such"):
        store.log_artifact(run_id, tmp_path / "no-such.png")


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
