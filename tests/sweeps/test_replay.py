"""The command `evenkeel replay`: the recorded vectors through every format, its outputs, and every mistake."""

import csv
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from actors.lr_policies import LengthTriggeredConfig, LinearConfig, SchedulerConfig, SignalTriggeredConfig
from orchestrator import yaml_files
from orchestrator.records import StepRecord
from orchestrator.traces import Trace
from orchestrator.tracking.store import MlflowStore
from sweeps import cli
from sweeps.replay import Replay, Watch, replay
from sweeps.replay_output import event_table, publish, replacing

ROOT = Path(__file__).resolve().parents[2]
VECTORS = sorted((ROOT / "tests" / "data" / "vectors").glob("lr_*.json"))
LENGTH = "response/length_mean"
Rows = list[dict[str, Any]]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def evenkeel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """The real command line, in this process and in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evenkeel", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        code = left.value.code
        assert code is None or isinstance(code, int)
        return (code or 0, *capsys.readouterr())

    return run


def write(rows: Rows, path: str) -> None:
    """Rows in the format that the suffix names."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    if path.endswith(".parquet"):
        pq.write_table(pa.table({name: pa.array([row.get(name) for row in rows]) for name in names}), path)
    elif path.endswith(".csv"):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
    else:
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def policy(text: str) -> str:
    Path("policy.yaml").write_text(text)
    return "policy.yaml"


def trace_of(values: list[float], name: str = "x") -> Trace:
    steps = np.arange(len(values), dtype=np.int64)
    return Trace(source="t.csv", steps=steps, columns={name: np.array(values, np.float64)})


LENGTHS = [{"step": step, LENGTH: 10.0 if step < 4 else 30.0, "gradient/norm": 1.0} for step in range(16)]
SURGE = "{kind: length_triggered, lr: 1.0e-6, baseline_steps: 2, smoothing: 1.0, patience: 2}"  # at step 5, P = 9
EXPECTED = [
    {"step": step, "lr": 1e-06 if step < 9 else 5e-07, "events": {5: ["surge"], 9: ["decay"]}.get(step, [])}
    for step in range(16)
]


# Decisions.


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("vector", VECTORS, ids=lambda path: path.stem)
def test_recorded_vectors_are_met_from_every_format(evenkeel: Command, vector: Path, suffix: str) -> None:
    recorded = json.loads(vector.read_text())
    write(recorded["trace"], f"trace{suffix}")
    code, out, err = evenkeel("replay", f"trace{suffix}", "--policy", policy(yaml_files.dump(recorded["policy"])))
    assert (code, err) == (0, "")
    decisions = [json.loads(line) for line in out.splitlines()]
    assert [decision["step"] for decision in decisions] == [expected["step"] for expected in recorded["expected"]]
    for decision, expected in zip(decisions, recorded["expected"], strict=True):
        assert list(decision) == ["step", "lr", "events"]
        if expected["lr"] is not None:
            assert decision["lr"] == pytest.approx(expected["lr"], rel=1e-9, abs=0)
        if expected["events"] is not None:
            assert decision["events"] == expected["events"]


def test_there_are_vectors_to_meet() -> None:
    assert len(VECTORS) == 13


def test_a_line_is_written_as_it_is_documented_with_the_exact_lr(evenkeel: Command) -> None:
    write([{"step": 7, LENGTH: 1.0}], "t.jsonl")
    _, out, _ = evenkeel("replay", "t.jsonl", "--policy", policy("{kind: constant, lr: 1.2345678901234567e-6}"))
    assert out == '{"step": 7, "lr": 1.2345678901234567e-06, "events": []}\n'
    write(LENGTHS, "t.jsonl")
    _, out, _ = evenkeel("replay", "t.jsonl", "--policy", policy(SURGE))
    assert out.splitlines()[5] == '{"step": 5, "lr": 1e-06, "events": ["surge"]}'


def test_columns_with_other_names_are_mapped(evenkeel: Command) -> None:
    write([{"global_step": row["step"], "length": row[LENGTH]} for row in LENGTHS], "t.csv")
    maps = ["--map", f"length={LENGTH}", "--map", "global_step=step"]
    code, out, _ = evenkeel("replay", "t.csv", "--policy", policy(SURGE), *maps)
    assert (code, [json.loads(line) for line in out.splitlines()]) == (0, EXPECTED)


def test_an_mlflow_run_is_replayed_from_the_database_among_the_runs(evenkeel: Command, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    store = MlflowStore(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}", None)
    run_id = store.create_run("replay", "run", {}, None)
    rows = [{key: value for key, value in row.items() if key != "step"} for row in LENGTHS]
    store.log_steps(run_id, [StepRecord(step=n, time_ms=n, metrics=row, events=()) for n, row in enumerate(rows)])
    code, out, _ = evenkeel("replay", run_id, "--policy", policy(SURGE))
    assert (code, [json.loads(line) for line in out.splitlines()]) == (0, EXPECTED)
    (tmp_path / "runs").rename("elsewhere")
    assert evenkeel("replay", run_id, "--policy", "policy.yaml", "--runs", "elsewhere")[1] == out
    uri = "sqlite:///elsewhere/mlflow.db"
    assert evenkeel("replay", run_id, "--policy", "policy.yaml", "--tracking-uri", uri)[1] == out
    code, _, err = evenkeel("replay", "f" * 32, "--policy", "policy.yaml", "--tracking-uri", uri)
    assert (code, err) == (2, f"evenkeel: {'f' * 32}: expected a file, a run folder or the id of a run in {uri}\n")


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_an_annealing_policy_without_total_steps_ends_with_the_trace(evenkeel: Command, kind: str) -> None:
    write([{"step": step} for step in (0, 50, 99)], "t.csv")
    own, given = (
        evenkeel("replay", "t.csv", "--policy", policy(f"{{kind: {kind}, lr: 1.0{total}}}"))[1]
        for total in ("", ", total_steps: 100")
    )
    assert own == given
    assert [json.loads(line)["lr"] for line in own.splitlines()][1] == pytest.approx(0.5)


# Where they go.


def test_out_takes_the_lines_and_leaves_no_other_file(evenkeel: Command, tmp_path: Path) -> None:
    write(LENGTHS, "t.jsonl")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "decisions.jsonl").write_text("earlier")
    arguments = ["--out", "out/decisions.jsonl", "--plot", "out/replay.png"]
    assert evenkeel("replay", "t.jsonl", "--policy", policy(SURGE), *arguments) == (0, "", "")
    lines = (tmp_path / "out" / "decisions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == EXPECTED
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["decisions.jsonl", "replay.png"]


def test_a_picture_that_cannot_be_drawn_leaves_everything_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(replayed: Replay, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError

    monkeypatch.setattr("sweeps.replay_figure.draw", fail)
    out = tmp_path / "out.jsonl"
    out.write_text("earlier")
    replayed = replay(LinearConfig(), trace_of([1.0, 2.0]), "p.yaml")
    with pytest.raises(RuntimeError):
        publish(replayed, out, tmp_path / "p.png", None)
    assert (out.read_text(), [path.name for path in tmp_path.iterdir()]) == ("earlier", ["out.jsonl"])


def test_what_is_written_beside_a_file_has_a_name_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    with replacing(path) as one, replacing(path) as other:
        assert len({path, one, other}) == 3
        assert {one.parent, other.parent, one.suffix, other.suffix} == {tmp_path, ".png"}
        one.touch()
        other.touch()


def shown(replayed: Replay) -> list[list[str]]:
    """The cells of the event table, as a terminal of 100 columns shows them."""
    console = Console(force_terminal=True, width=100, color_system=None)
    with console.capture() as capture:
        console.print(event_table(replayed))
    lines = capture.get().replace("┃", "│").splitlines()
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]


def test_the_table_has_the_first_and_last_row_and_those_with_events() -> None:
    config = SignalTriggeredConfig(lr=1e-6, signal="x", threshold=2.0, smoothing=1.0, patience=1, cooldown_steps=3)
    values = [float("nan"), 1.0, 3.0, 1.0, 1.0, 1 / 3, 123456.789, 1.0]
    assert shown(replay(config, trace_of(values), "p.yaml")) == [
        ["step", "x", "learning rate", "events"],
        ["0", "-", "1e-06", ""],
        ["2", "3", "5e-07", "decay"],
        ["6", "123457", "2.5e-07", "decay"],
        ["7", "1", "2.5e-07", ""],
    ]


def test_the_table_of_a_policy_without_signal_has_no_column_for_one_and_a_single_row_stands_once() -> None:
    trace = Trace(source="t.csv", steps=np.array([5]), columns={})
    assert shown(replay(LinearConfig(lr=1.0, total_steps=10), trace, "p.yaml")) == [
        ["step", "learning rate", "events"],
        ["5", "0.5", ""],
    ]


def on_a_terminal(folder: Path, *arguments: str) -> str:
    """What the command shows on a terminal."""
    ours, theirs = pty.openpty()
    code = "import sys; from sweeps.cli import main; sys.argv[0] = 'evenkeel'; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, env=environment, stdout=theirs, stderr=theirs, check=False
    )
    text = os.read(ours, 1 << 16).decode().replace("\r\n", "\n")
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0, text
    return text


def test_a_terminal_shows_the_table_or_where_the_files_went(evenkeel: Command, tmp_path: Path) -> None:
    write(LENGTHS, "t.jsonl")
    table = on_a_terminal(tmp_path, "replay", "t.jsonl", "--policy", policy(SURGE))
    assert "│ 5    │ 30                   │ 1e-06         │ surge  │" in table
    assert '{"step"' not in table
    files = ["--out", "d.jsonl", "--plot", "p.svg"]
    told = on_a_terminal(tmp_path, "replay", "t.jsonl", "--policy", "policy.yaml", *files)
    assert told == "decisions in d.jsonl\npicture in p.svg\n"
    assert len((tmp_path / "d.jsonl").read_text().splitlines()) == len(LENGTHS)


# What the detector showed.


def watched(config: SchedulerConfig, trace: Trace) -> Watch:
    watch = replay(config, trace, "p.yaml", watch=True).watch
    assert watch is not None
    return watch


def test_the_watch_follows_ema_level_and_count_up_to_the_surge() -> None:
    config = LengthTriggeredConfig(baseline_steps=2, smoothing=0.5, patience=2, ratio=1.5, decay_period=1)
    nan = float("nan")
    watch = watched(config, trace_of([nan, 10.0, 10.0, 30.0, nan, 30.0, 30.0], LENGTH))
    np.testing.assert_array_equal(watch.ema, [nan, 10.0, 10.0, 20.0, 20.0, 25.0, nan])
    np.testing.assert_array_equal(watch.level, [nan, nan, 15.0, 15.0, 15.0, 15.0, nan])
    np.testing.assert_array_equal(watch.count, [0, 0, 0, 1, 1, 2, nan])


def test_the_watch_shows_what_the_counter_came_to_before_it_was_set_back() -> None:
    config = SignalTriggeredConfig(signal="x", threshold=1.0, smoothing=1.0, patience=2, cooldown_steps=4)
    watch = watched(config, trace_of([2.0] * 8 + [0.0]))
    assert watch.count.tolist() == [1, 2, 1, 2, 3, 4, 1, 2, 0]
    every_step = config.model_copy(update={"patience": 1, "cooldown_steps": 0})
    assert watched(every_step, trace_of([2.0] * 3)).count.tolist() == [1, 1, 1]


def test_nothing_is_watched_where_no_signal_is_read() -> None:
    trace = Trace(source="t.csv", steps=np.array([0, 1]), columns={})
    for config in (LinearConfig(), LengthTriggeredConfig(surge_step=1)):
        assert replay(config, trace, "p.yaml", watch=True).watch is None


# Mistakes.


def mistake(evenkeel: Command, *arguments: str) -> str:
    """The one line that tells of a mistake; nothing was written."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    code, out, err = evenkeel("replay", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    return err.removeprefix("evenkeel: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "got [1], expected a mapping with text keys at the top level"),
        ("", "expected a mapping with text keys at the top level"),
        ("{lr: 1.0}", "policy.yaml: kind: expected a kind out of 'constant', 'linear', "),
        ("{kind: null}", "policy.yaml: kind: got null, expected a kind out of 'constant', 'linear', "),
        ("{kind: magic}", "kind: got 'magic', expected a kind out of 'constant', 'linear', "),
        ("{kind: step, periods: 5}", "period: expected a value: it is missing (and 1 more)"),
        ("{kind: constant, lrr: 5}", "lrr: got 5, expected a known key; did you mean 'lr'?"),
        ("{kind: constant, lr: '1e-6'}", "lr: got '1e-6', expected a valid number"),
        ("{kind: length_triggered, factor: 1.5}", "factor: got 1.5, expected less than 1"),
        ("{kind: length_triggered, factor: 0}", "factor: got 0, expected greater than 0"),
        ("{kind: signal_triggered, signal: x, threshold: .inf}", "threshold: got inf, expected a finite number"),
        ("{kind: signal_triggered, signal: x, threshold: high}", "threshold: got 'high', expected a valid number"),
        ("{kind: signal_triggered, threshold: 1.0}", "signal: expected a value: it is missing"),
        ("{kind: linear, warmup_steps: 16}", "warmup_steps: got 16, expected less than total_steps, by default the"),
        (
            "{kind: cosine, warmup_steps: 5, total_steps: 5}",
            "policy.yaml: warmup_steps: got 5, expected less than total_steps, which is 5",
        ),
        ("{kind: signal_triggered, signal: ''}", "policy.yaml: signal: got '', expected text of 1 or more characters"),
        ("{kind: signal_triggered, signal: step}", "policy.yaml: signal: got 'step', expected a metric, "),
        ("kind: [", "policy.yaml:"),
    ],
)
def test_a_mistake_in_the_policy_is_told_with_its_field(evenkeel: Command, text: str, told: str) -> None:
    write(LENGTHS, "t.jsonl")
    line = mistake(evenkeel, "t.jsonl", "--policy", policy(text), "--out", "d.jsonl")
    assert line.startswith("policy.yaml:")
    assert told in line


def test_a_policy_file_that_is_not_there_is_told(evenkeel: Command) -> None:
    write(LENGTHS, "t.jsonl")
    expected = "gone.yaml: expected a readable file (No such file or directory)"
    assert mistake(evenkeel, "t.jsonl", "--policy", "gone.yaml") == expected


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("t.jsonl", None, "t.jsonl: expected a readable file (it is not there)"),
        ("", None, "TRACE: got '', expected a .jsonl, .csv or .parquet file, a run folder or an MLflow run id"),
        (f"{'x' * 300}.csv", None, f"{'x' * 300}.csv: expected a readable file (it is not there)"),
        ("t.txt", "", "t.txt: expected a .jsonl, .csv or .parquet file, a run folder or an MLflow run id"),
        ("t.jsonl", "", "t.jsonl: expected at least one step; it has none"),
        ("t.jsonl", '{"step": 0}\n{', "t.jsonl: line 2: got '{', expected a JSON object (EOF while parsing an object;"),
        ("t.csv", "step,x\n0,1\n1\n", "t.csv: line 3: got '1 cells', expected 2, as the header has"),
        ("t.csv", f"x,{LENGTH}\n0,1\n", "t.csv: step: expected a column of that name; the columns are x, response/"),
        ("t.csv", f"step,{LENGTH}\n0.5,1\n", "t.csv: line 2: step: got 0.5, expected a whole number from 0 on"),
        ("t.csv", f"step,{LENGTH}\n-1,1\n", "t.csv: line 2: step: got -1, expected a whole number from 0 on"),
        ("t.csv", f"step,{LENGTH}\n,1\n", "t.csv: line 2: step: expected a whole number from 0 on; it is missing"),
        ("t.csv", f"step,{LENGTH}\n4,1\n3,1\n", "t.csv: line 3: step: got 3, expected more than 4, the step before it"),
        ("t.csv", f"step,{LENGTH}\n4,1\n4,1\n", "t.csv: line 3: step: got 4, expected more than 4, the step before it"),
        ("t.csv", f"step,{LENGTH}\n0,long\n", f"t.csv: line 2: {LENGTH}: got 'long', expected a number"),
        (
            "t.csv",
            "step,length_mean\n0,1\n",
            f"t.csv: {LENGTH}: expected a column of that name; the columns are step, ",
        ),
        ("t.parquet", "no parquet", "t.parquet: expected an intact Parquet file ("),
        (
            "e" * 32,
            None,
            f"{'e' * 32}: expected a file, a run folder or an MLflow run id; for a run id, --tracking-uri",
        ),
    ],
)
def test_a_mistake_in_the_trace_is_told_with_its_place(
    evenkeel: Command, name: str, text: str | None, told: str
) -> None:
    if text is not None:
        Path(name).write_text(text)
    arguments = ["--policy", policy("kind: length_triggered"), "--out", "d.jsonl", "--plot", "p.png"]
    assert mistake(evenkeel, name, *arguments).startswith(told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "gone/d.jsonl"], "--out: got 'gone/d.jsonl', expected a file in a folder that exists"),
        (["--plot", "gone/p.png"], "--plot: got 'gone/p.png', expected a file in a folder that exists"),
        (["--plot", "p.bmp2"], "--plot: got 'p.bmp2', expected a file name that ends in one of: ."),
        (["--plot", "p"], "--plot: got 'p', expected a file name that ends in one of: ."),
        (["--out", "."], "--out: got '.', expected a file, new or to be replaced"),
        (["--out", os.devnull], f"--out: got '{os.devnull}', expected a file, new or to be replaced"),
        (["--out", "./t.jsonl"], "--out: got 't.jsonl', expected another file than the trace"),
        (["--out", "link.jsonl"], "--out: got 'link.jsonl', expected another file than the trace"),
        (["--out", "policy.yaml"], "--out: got 'policy.yaml', expected another file than the policy"),
        (["--out", "f.png", "--plot", "./f.png"], "--plot: got 'f.png', expected another file than that of --out"),
        (["--out", "link.png", "--plot", "f.png"], "--plot: got 'f.png', expected another file than that of --out"),
        (["--map", "x"], "--map: got 'x', expected OLD=NEW, a recorded column and the name to read it under"),
        (["--map", f"x={LENGTH}"], f"--map: got 'x={LENGTH}', expected a column of t.jsonl; the columns are "),
        (
            ["--map", f"gradient/norm={LENGTH}"],
            f"--map: got 'gradient/norm={LENGTH}', expected a new name; t.jsonl has",
        ),
    ],
)
def test_a_mistake_in_an_option_is_told_by_its_name(evenkeel: Command, arguments: list[str], told: str) -> None:
    write(LENGTHS, "t.jsonl")
    Path("link.jsonl").symlink_to("t.jsonl")
    Path("link.png").symlink_to("f.png")  # not there yet
    assert mistake(evenkeel, "t.jsonl", "--policy", policy(SURGE), *arguments).startswith(told)


def test_the_metrics_of_a_run_folder_are_its_trace(evenkeel: Command) -> None:
    Path("seed-0").mkdir()
    write(LENGTHS, "seed-0/metrics.jsonl")
    line = mistake(evenkeel, "seed-0", "--policy", policy(SURGE), "--out", "seed-0/metrics.jsonl")
    assert line == "--out: got 'seed-0/metrics.jsonl', expected another file than the trace"


def test_targets_are_checked_before_anything_is_read(evenkeel: Command) -> None:
    line = mistake(evenkeel, "gone.jsonl", "--policy", "gone.yaml", "--out", "gone/d.jsonl")
    assert line == "--out: got 'gone/d.jsonl', expected a file in a folder that exists"


def test_a_replay_loads_nothing_heavy(evenkeel: Command, tmp_path: Path) -> None:
    write(LENGTHS, "t.csv")
    code = (
        f"import sys; sys.argv = ['evenkeel', 'replay', 't.csv', '--policy', {policy(SURGE)!r}]\n"
        "from sweeps.cli import main\n"
        "heavy = {'torch', 'ray', 'mlflow', 'matplotlib', 'pyarrow'}\n"
        "try: main()\n"
        "finally: print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert [json.loads(line) for line in done.stdout.splitlines()] == EXPECTED
