"""What a forked run stands on: its own decisions, and everything else as the full run would have had it."""

import json
import math
import os
import shutil
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.checkpoints.store import CheckpointStore
from orchestrator.run.folder import stored_config
from orchestrator.run.resume import check_resumable
from orchestrator.run.status import RunStatus
from orchestrator.yaml_files import read_mapping
from sweeps.fork.fork import Fork, read_fork
from sweeps.fork.making import make_fork
from sweeps.fork.plan import best_source

LENGTHS = st.sampled_from([10.0, 20.0, 40.0, 80.0, math.nan, math.inf, None]) | st.floats(5.0, 90.0)
REWARDS = st.sampled_from([0.0, 1.0, 0.3])
TRACES = st.lists(st.tuples(LENGTHS, REWARDS), min_size=20, max_size=20)
RATES = {"lr": st.sampled_from([1e-6, 1e-6, 1e-6, 3e-6]), "warmup_steps": st.sampled_from([0, 0, 3])}
DETECTORS = {**RATES, "baseline_steps": st.integers(1, 6), "smoothing": st.sampled_from([1.0, 0.4])}
DETECTORS |= {"patience": st.integers(1, 3), "ratio": st.sampled_from([1.2, 2.0])}
POLICIES = st.one_of(
    st.fixed_dictionaries({"kind": st.just("constant"), **RATES}),
    st.fixed_dictionaries({"kind": st.just("step"), "period": st.integers(4, 25), **RATES}),
    st.fixed_dictionaries({"kind": st.just("linear"), "min_lr_ratio": st.sampled_from([0.0, 1.0]), **RATES}),
    st.fixed_dictionaries(
        {"kind": st.just("length_triggered"), "anchor": st.sampled_from(["start", "surge"]), **DETECTORS}
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("signal_triggered"),
            "signal": st.sampled_from(["response/length_mean", "reward/mean"]),
            "threshold": st.sampled_from([None, 0.5, 30.0]),
            "cooldown_steps": st.integers(0, 6),
            **DETECTORS,
        }
    ),
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=TRACES,
    policies=st.tuples(POLICIES, POLICIES, POLICIES),
    until=st.sampled_from([20, 20, 13]),
    on_collapse=st.sampled_from(["record", "stop"]),
)
def test_forks_and_forks_of_forks_come_to_what_the_full_runs_come_to(
    made: Any, values: Any, policies: Any, until: int, on_collapse: str
) -> None:
    trace = [
        {"reward/mean": reward, **({} if length is None else {"response/length_mean": length})}
        for length, reward in values
    ]
    baseline, *trials = [
        made.config(policy, stability={"patience": 2, "on_collapse": on_collapse}) for policy in policies
    ]
    with TemporaryDirectory() as shared, TemporaryDirectory() as alone:
        forks, full = made.at(shared), made.at(alone)
        runs = [forks.run("baseline", baseline, trace, until)]
        for number, config in enumerate(trials):
            arm = f"trial-{number:03d}"
            plan = best_source(config, 0, runs)
            forked = make_fork(plan, forks.folder(arm), config, 0, made.refuse)
            assert (forked is None) == (plan is None)
            assert read_fork(forks.folder(arm)) == forked
            runs.append(forks.run(arm, config, trace))
            came_to, expected = forks.outcome(runs[-1]), full.outcome(full.run(arm, config, trace))
            if forked is not None and forked.whole:  # there is nothing to go on with
                came_to["state"] = expected["state"]
            assert came_to == expected


def test_a_fork_stands_as_the_full_run_that_was_interrupted_there(made: Any) -> None:
    baseline = made.run("baseline", made.config())
    config = made.config(made.triggered(20.0))
    made_of = made.fork(made.triggered(20.0), baseline)
    interrupted = made.run("alone", config, until=6)
    assert made_of == Fork(source="baseline", forked_at=6, whole=False)
    forked, there = made.files(made.folder("trial-000")), made.files(interrupted)
    state, expected = (json.loads(files.pop("checkpoints/step-000006/state.json")) for files in (forked, there))
    assert state == {**expected, "mlflow_run_id": None}
    assert forked.pop("forked_from.json") == b'{"source": "baseline", "forked_at": 6, "whole": false}\n'
    own = {"log.txt", "run.json", ".lock"}
    own |= {f"checkpoints/step-000006/manifest.{suffix}" for suffix in ("json", "sha256")}
    assert {name: forked[name] for name in forked.keys() - own} == {name: there[name] for name in there.keys() - own}
    check_resumable(made.folder("trial-000"), config, 0, "sweep.yaml")
    status = RunStatus.read(made.folder("trial-000"))
    assert status is not None
    assert (status.status, status.last_step, status.mlflow_run_id) == ("interrupted", 5, None)


def test_a_run_in_which_no_rate_differs_is_over_and_has_its_own_events(made: Any) -> None:
    baseline = made.run("baseline", made.config())
    surge_only = {"kind": "length_triggered", "lr": 1e-6, "baseline_steps": 2, "smoothing": 1.0, "patience": 1}
    surge_only["period_multiplier"] = 100.0
    assert made.fork(surge_only, baseline) == Fork(source="baseline", forked_at=20, whole=True)
    folder = made.folder("trial-000")
    assert [row["step"] for row in made.rows(folder) if "scheduler/event/surge" in row] == [9]
    before = made.files(folder)
    made.run("trial-000", made.config(surge_only), trace=[])
    assert made.files(folder).keys() - before.keys() == {".lock"}
    assert made.files(folder)["metrics.jsonl"] == before["metrics.jsonl"]
    own, of_source = RunStatus.read(folder), RunStatus.read(baseline)
    assert own is not None and of_source is not None
    assert (own.status, own.last_step, own.resumes) == ("finished", 19, 0)
    assert own.uid != of_source.uid
    assert os.path.samefile(folder / "model" / "deep" / "weights", baseline / "model" / "deep" / "weights")
    assert made.rows(baseline) == [
        {key: value for key, value in row.items() if not key.startswith("scheduler/event")} for row in made.rows(folder)
    ]


def test_a_collapse_that_stops_the_source_stops_the_fork(made: Any) -> None:
    stops = {"stability": {"patience": 2, "on_collapse": "stop"}}
    trace = [{"reward/mean": 1.0 if step < 8 else 0.0} for step in range(made.steps)]
    baseline = made.run("baseline", made.config(**stops), trace)
    config = made.config(made.triggered(20.0), **stops)
    forked = make_fork(best_source(config, 0, [baseline]), made.folder("trial-000"), config, 0, made.refuse)
    assert forked is not None
    assert forked.whole
    assert forked.forked_at == len(made.rows(baseline)) < made.steps
    assert made.rows(made.folder("trial-000"))[-1]["stability/collapsed"] == 1.0
    status = RunStatus.read(made.folder("trial-000"))
    assert status is not None
    assert status.status == "collapsed"
    assert made.outcome(made.folder("trial-000"))["verdict"]["collapsed"]


def test_a_collapse_before_the_fork_is_in_its_verdict(made: Any) -> None:
    trace = [
        {"reward/mean": float(step < 1), "response/length_mean": 10.0 if step < 19 else 90.0}
        for step in range(made.steps)
    ]
    config = made.config(made.triggered(20.0))
    baseline = made.run("baseline", made.config(), trace)
    assert make_fork(best_source(config, 0, [baseline]), made.folder("trial-000"), config, 0, made.refuse) is not None
    verdict = json.loads((made.folder("trial-000") / "verdict.json").read_text())
    assert verdict == json.loads((baseline / "verdict.json").read_text())
    assert verdict["collapsed"]


def test_files_of_the_learners_are_linked_and_outlive_the_source(made: Any) -> None:
    baseline = made.run("baseline", made.config())
    config = made.config(made.triggered(20.0))
    before = made.files(baseline)
    made.fork(made.triggered(20.0), baseline)
    checkpoint = "checkpoints/step-000006/learner/weights"
    assert os.path.samefile(baseline / checkpoint, made.folder("trial-000") / checkpoint)
    made.run("trial-000", config)
    assert made.files(baseline) == before
    shutil.rmtree(baseline)
    assert made.outcome(made.folder("trial-000")) == made.outcome(made.run("alone", config))


def test_rollouts_of_the_shared_steps_come_along(made: Any) -> None:
    baseline = made.run("baseline", made.config())
    (baseline / "rollouts" / ".train-000000.parquet.partial").touch()
    made.fork(made.triggered(50.0), baseline)
    names = sorted(path.name for path in (made.folder("trial-000") / "rollouts").iterdir())
    assert names == ["train-000000.parquet", "train-000005.parquet", "train-000010.parquet"]


def test_a_source_whose_steps_are_others_by_now_is_passed_over(made: Any) -> None:
    baseline = made.run("baseline", made.config())
    config = made.config(made.triggered(20.0))
    plan = best_source(config, 0, [baseline])
    lines = (baseline / "metrics.jsonl").read_text().splitlines(keepends=True)
    told: list[str] = []
    for content in (
        "".join(lines[:4]),
        "".join(lines).replace("0.25", "0.250001"),
        "".join(lines).replace("1e-06", "2e-06"),
    ):
        (baseline / "metrics.jsonl").write_text(content)
        assert make_fork(plan, made.folder("trial-000"), config, 0, lambda path, reason: told.append(reason)) is None
    assert len(told) == 3
    assert not made.folder("trial-000").exists()


def test_the_stored_config_is_that_of_the_run(made: Any) -> None:
    config = made.config(made.triggered(20.0), checkpoint={"every": 6, "keep": 1})
    baseline = made.run("baseline", made.config())
    make_fork(best_source(config, 0, [baseline]), made.folder("trial-000"), config, 0, made.refuse)
    assert read_mapping(made.folder("trial-000") / "config.yaml") == stored_config(config, 0)
    made.run("trial-000", config)
    left = CheckpointStore(made.folder("trial-000") / "checkpoints", keep=None).sizes()
    assert [size.step for size in left] == [20]
