"""evenkeel runs: list, show and delete as a user types them."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from run_folders import everything, make_checkpoint, make_run

from orchestrator.checkpoints.manifest import Manifest, saved_file
from orchestrator.run.lock import run_lock
from orchestrator.run.status import RunStatus
from sweeps import cli

ROOT = Path(__file__).resolve().parents[2]
DECAY, OLD, BASELINE = "demo/decay/seed-0", "demo/decay/seed-0.old-1", "demo/baseline/seed-0"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    make_run(root / DECAY, status=RunStatus.begin())
    make_run(root / OLD)
    make_run(root / BASELINE, done=5, status=RunStatus.begin().end("finished"))
    make_checkpoint(root / DECAY, "step-000002", 2048)
    return root


@pytest.fixture
def evenkeel(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process, beside runs/ and without a terminal; exit code, standard output and error."""
    monkeypatch.chdir(runs.parent)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evenkeel", "runs", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


def test_the_list_has_a_row_per_run(evenkeel: Command, runs: Path) -> None:
    with run_lock(runs / DECAY):
        code, out, err = evenkeel("list")
    assert (code, err) == (0, "")
    rows = [line.split()[1:4:2] for line in out.splitlines() if "seed-" in line]
    assert rows == [[BASELINE, "finished"], [DECAY, "running"], [OLD, "unknown"]]
    assert out.splitlines()[-1].startswith("3 runs, ")
    assert "died" in evenkeel("list")[1]


def test_the_list_as_json_is_one_list(evenkeel: Command, runs: Path) -> None:
    (runs / OLD / "run.json").write_text("{")
    code, out, _ = evenkeel("list", "--json")
    assert code == 0
    told = {run["run"]: run for run in json.loads(out)}
    assert {key: run["state"] for key, run in told.items()} == {DECAY: "died", OLD: "broken", BASELINE: "finished"}
    assert told[OLD]["problems"][0].startswith("run.json: expected a run's state (")
    assert told[DECAY]["last_checkpoint"] == 2


def test_one_run_is_shown_by_name_or_path(evenkeel: Command) -> None:
    by_name, by_path = evenkeel("show", DECAY), evenkeel("show", f"runs/{DECAY}")
    assert by_name == by_path
    assert by_name[0] == 0
    assert re.search(r"state +│ died: its process is gone", by_name[1])


def test_verify_reads_every_byte_of_the_checkpoints(evenkeel: Command, runs: Path) -> None:
    checkpoint = runs / DECAY / "checkpoints" / "step-000002"
    (checkpoint / "manifest.json").unlink()
    Manifest(fingerprint="0" * 64, files=(saved_file(checkpoint, "learner/weights"),)).write(checkpoint)
    assert re.search(r"step 2 +│ complete, every byte as written", evenkeel("show", DECAY, "--verify")[1])
    (checkpoint / "learner" / "weights").write_bytes(bytes(2047) + b"1")
    assert re.search(r"step 2 +│ complete +│", evenkeel("show", DECAY)[1])
    assert re.search(r"step 2 +│ learner/weights: its content has changed", evenkeel("show", DECAY, "--verify")[1])


def test_runs_are_deleted_after_it_was_shown_what(evenkeel: Command, runs: Path) -> None:
    code, out, err = evenkeel("delete", OLD, f"runs/{OLD}", BASELINE, "--yes")
    assert (code, err) == (0, "")
    assert out.count(f"{OLD} ") == 1
    assert f"deleted runs/{OLD}\ndeleted runs/{BASELINE}\n" in out
    assert sorted(everything(runs)) == sorted(["demo", "demo/decay", DECAY, *below(runs, DECAY)])


def below(root: Path, key: str) -> list[str]:
    return [f"{key}/{name}" for name in everything(root / key)]


def test_checkpoints_alone_are_deleted(evenkeel: Command, runs: Path) -> None:
    code, out, _ = evenkeel("delete", DECAY, "--checkpoints", "--yes")
    assert code == 0
    assert re.search(rf"{DECAY}: checkpoints +│ died +│ 3 of 5 +│ 1 +│ 2 KiB", out)
    assert (runs / DECAY / "metrics.jsonl").exists()
    assert not (runs / DECAY / "checkpoints").exists()


def test_what_an_interrupted_deletion_has_left_goes_with_the_next(evenkeel: Command, runs: Path) -> None:
    left = runs / "demo" / "decay" / f".deleted-seed-4-{'0' * 32}"
    left.mkdir()
    (left / "model").write_bytes(bytes(2048))
    code, out, _ = evenkeel("delete", "--yes")
    assert (code, out) == (0, "and 2 KiB that an interrupted deletion has left\n")
    assert not left.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["list", "--runs", "gone"], "--runs: got 'gone', expected a folder that holds runs (No such file or "),
        (["show", "demo/decay/seed-1"], "RUN: got 'demo/decay/seed-1', expected a run in runs, as NAME/ARM/seed-N or "),
        (["show", "runs/../.."], "RUN: got 'runs/../..', expected a run in runs, "),
        (["delete", OLD], "--yes: expected this option where nobody can be asked: there is no terminal"),
        (["delete"], "RUN: expected a run to delete; `evenkeel runs list` shows them"),
        (["delete", OLD, "demo/x/seed-0", "--yes"], "RUN: got 'demo/x/seed-0', expected a run in runs"),
        (["delete", "demo", "--yes"], "RUN: got 'demo', expected a run in runs"),
        pytest.param(
            ["delete", OLD, DECAY, "--yes"], f"runs/{DECAY}: is in use by process {os.getpid()} on host ", id="in use"
        ),
        (["nonsense"], "No such command 'nonsense'."),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two_and_deletes_nothing(
    evenkeel: Command, runs: Path, arguments: list[str], told: str
) -> None:
    with run_lock(runs / DECAY):
        before = everything(runs)
        code, _, err = evenkeel(*arguments)
        assert everything(runs) == before
    assert code == 2
    assert err.startswith(f"evenkeel: {told}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(("answer", "code", "stays"), [("y", 0, False), ("n", 1, True), ("", 1, True)])
def test_on_a_terminal_the_command_asks(runs: Path, answer: str, code: int, stays: bool) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeps", "runs", "delete", OLD],
        cwd=runs.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.write(ours, f"{answer}\n".encode())
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert "delete? [y/N]" in out
    assert (process.returncode, (runs / OLD).exists()) == (code, stays)


def test_runs_alone_shows_its_help(evenkeel: Command) -> None:
    code, out, _ = evenkeel()
    assert code == 0
    assert all(command in out for command in ("list", "show", "delete"))


def test_the_commands_load_nothing_heavy(runs: Path) -> None:
    code = (
        "import sys; sys.argv = ['evenkeel', 'runs', 'list']\n"
        "from sweeps.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'ray', 'vllm', 'mlflow', 'optuna'} & set(sys.modules)), file=sys.stderr)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (0, ["[]"])
