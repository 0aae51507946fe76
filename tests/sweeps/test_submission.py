"""What is checked before anything is sent, and which files a command needs."""

import json
from pathlib import Path

import pytest

from orchestrator.config_errors import ConfigError
from sweeps.submission import COMPARE, RUN, SWEEP, Submission, local_path

TINY = """\
name: tiny
model: {path: embedded}
task: {kind: arithmetic, digits: 3}
rollout: {workers: 1, prompts_per_step: 4, group_size: 4, max_response_tokens: 32}
scheduler: {kind: length_triggered, lr: 1.0e-4}
steps: 4
arms: {baseline: {scheduler: {kind: constant, lr: 1.0e-4}}, decay: {}}
"""
FILES = """\
name: files
model: {path: models/small}
task: {kind: python, function: "my_rewards:score", train: [data/a.jsonl, /shared/b.parquet], template: plain}
evaluation: {every: 2, sets: {test: data/test.jsonl, aime: ~/aime.parquet}}
rollout: {workers: 1, prompts_per_step: 4, group_size: 4, max_response_tokens: 32}
scheduler: {kind: constant, lr: 1.0e-4}
steps: 4
"""
SWEPT = """\
name: swept
experiment: ../tiny.yaml
space: {scheduler.decay_period: {kind: int, low: 4, high: 12}}
objective: {metric: reward/mean}
trials: 2
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    for name in ("data", "models/small", "sweeps"):
        (folder / name).mkdir(parents=True)
    for name in ("a", "test"):
        (folder / "data" / f"{name}.jsonl").write_text(json.dumps({"prompt": "1+1", "answer": "2"}) + "\n")
    (folder / "my_rewards.py").write_text("def score(response, answer, source, extra):\n    return 1.0\n")
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "files.yaml").write_text(FILES)
    (folder / "sweeps" / "swept.yaml").write_text(SWEPT)
    monkeypatch.chdir(folder)
    return folder


def check(command: str, file: str, *overrides: str, arm: str = "") -> Submission:
    return Submission.check(command, file, overrides, arm, Path.cwd())


def mistake(command: str, file: str, *overrides: str, arm: str = "") -> str:
    with pytest.raises(ConfigError) as error:
        check(command, file, *overrides, arm=arm)
    return str(error.value)


def test_an_experiment_with_nothing_beside_it_needs_its_file_only(project: Path) -> None:
    for command, arm in ((RUN, ""), (RUN, "decay"), (COMPARE, "")):
        submission = check(command, "tiny.yaml", arm=arm)
        assert (submission.name, submission.needed) == ("tiny", (Path("tiny.yaml"),))
    assert check(RUN, str(project / "tiny.yaml")).file == Path("tiny.yaml")


def test_problems_model_and_reward_are_needed_and_what_the_cluster_has_is_not(project: Path) -> None:
    needed = ("data/a.jsonl", "data/test.jsonl", "files.yaml", "models/small", "my_rewards.py")
    assert check(RUN, "files.yaml").needed == tuple(Path(name) for name in needed)


def test_a_sweep_needs_its_experiment_too(project: Path) -> None:
    submission = check(SWEEP, "sweeps/swept.yaml")
    assert (submission.name, submission.file) == ("swept", Path("sweeps/swept.yaml"))
    assert set(submission.needed) == {Path("sweeps/swept.yaml"), Path("tiny.yaml")}


@pytest.mark.parametrize(
    ("command", "file", "override", "expected"),
    [
        (RUN, "gone.yaml", "steps=1", "gone.yaml: expected a readable file (No such file or directory)"),
        (COMPARE, "files.yaml", "steps=1", "files.yaml: arms: expected at least one arm to compare"),
        (RUN, "tiny.yaml", "steps=0", "tiny.yaml: --set steps: got 0, expected greater than"),
        (COMPARE, "tiny.yaml", "arms.decay.steps=x", "tiny.yaml: arms.decay.steps: got 'x', expected"),
        (SWEEP, "sweeps/swept.yaml", "trials=0", "sweeps/swept.yaml: --set trials: got 0"),
        (RUN, "files.yaml", "task.train=data/gone.jsonl", "task.train: got 'data/gone.jsonl', expected a readable"),
        (RUN, "tiny.yaml", "tracking.uri=sqlite:///m.db", "tracking.uri: got 'sqlite:///m.db', expected an absolute"),
        (SWEEP, "sweeps/swept.yaml", "storage=sqlite:///s.db", "storage: got 'sqlite:///s.db', expected an absolute"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(
    project: Path, command: str, file: str, override: str, expected: str
) -> None:
    assert expected in mistake(command, file, override)


def test_what_lies_outside_of_the_folder_that_is_sent_is_refused(project: Path) -> None:
    (project.parent / "outside.yaml").write_text(TINY)
    (project.parent / "outside.jsonl").write_text((project / "data" / "a.jsonl").read_text())
    told = f"expected a file below the folder that is sent, {project}: go to a folder that has all of them in it"
    assert mistake(RUN, "../outside.yaml") == f"../outside.yaml: {told}"
    got = "files.yaml: task.train: got '../outside.jsonl', "
    assert mistake(RUN, "files.yaml", "task.train=../outside.jsonl") == got + told
    assert mistake(SWEEP, "sweeps/swept.yaml", "experiment=../../outside.yaml").endswith(told)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:///mlflow.db", "mlflow.db"),
        ("sqlite:////shared/mlflow.db", "/shared/mlflow.db"),
        ("sqlite+pysqlite:///x.db", "x.db"),
        ("file:mlruns", "mlruns"),
        ("file:///shared/mlruns", "/shared/mlruns"),
        ("./mlruns", "./mlruns"),
        ("/shared/mlruns", "/shared/mlruns"),
        ("databricks", None),
        ("http://mlflow:5000", None),
        ("postgresql+psycopg://user@host/mlflow", None),
    ],
)
def test_a_uri_names_a_local_path_or_none(uri: str, path: str | None) -> None:
    assert local_path(uri) == path
