"""How a run stands as its folder tells it, whatever state its files are in."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from run_folders import everything, make_checkpoint, make_run

from orchestrator.run.lock import run_lock
from orchestrator.run.status import STATUS, RunStatus
from sweeps.run_summary import RunSummary, size_of

RUNNING = RunStatus.begin()


def read(folder: Path) -> RunSummary:
    return RunSummary.read("demo/decay/seed-0", folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "demo" / "decay" / "seed-0"


def test_a_run_that_goes_on_is_running_and_one_that_was_killed_has_died(folder: Path) -> None:
    make_run(folder, status=RUNNING)
    with run_lock(folder):
        assert read(folder).state == "running"
    assert read(folder).state == "died"
    assert read(folder).status == RUNNING


@pytest.mark.parametrize("end", ["finished", "collapsed", "stopped", "failed", "interrupted"])
def test_how_a_run_ended_is_its_state(folder: Path, end: str) -> None:
    make_run(folder, status=replace(RUNNING, status=end))  # type: ignore[arg-type]
    assert read(folder).state == end


def test_a_run_that_ends_between_two_looks_has_not_died(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(folder, status=RUNNING)

    def end_now(place: Path) -> bool:
        RUNNING.end("finished").write(place)
        return False

    monkeypatch.setattr("sweeps.run_summary.is_locked", end_now)
    assert read(folder).state == "finished"


def test_a_run_of_an_older_version_is_unknown(folder: Path) -> None:
    run = read(make_run(folder, done=3, steps=5))
    assert (run.state, run.status, run.steps_done, run.steps, run.problems) == ("unknown", None, 3, 5, ())


@pytest.mark.parametrize(
    ("metrics", "done"),
    [
        (b"", 0),
        (b'{"step": 0', 0),
        (b'{"step": 0}\n', 1),
        (b'{"step": 0}\n{"step": 1}\n{"step"', 2),
        (b'{"step": 6, "x": ' + b"1" * 100_000 + b"}\n" + b'{"step": 7, "reward/mean": 0.5}\n', 8),
    ],
)
def test_steps_are_counted_from_the_last_whole_line(folder: Path, metrics: bytes, done: int) -> None:
    make_run(folder)
    (folder / "metrics.jsonl").write_bytes(metrics)
    run = read(folder)
    assert (run.steps_done, run.problems) == (done, ())


def test_no_metrics_yet_are_no_steps(folder: Path) -> None:
    (make_run(folder) / "metrics.jsonl").unlink()
    assert read(folder).steps_done == 0


def break_status(folder: Path) -> None:
    (folder / STATUS).write_text('{"status": "gone"}')


def break_metrics(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text('{"step": 0}\n{"step": -1}\n')


def break_config(folder: Path) -> None:
    (folder / "config.yaml").write_text("name: demo\nsteps: many\n")


def link_checkpoints(folder: Path) -> None:
    (folder / "checkpoints").symlink_to(folder.parent)


def replace_metrics_by_a_folder(folder: Path) -> None:
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()


@pytest.mark.parametrize(
    ("harm", "told", "lost"),
    [
        (break_status, "run.json: status: got 'gone', expected 'running', ", {"state": "broken", "status": None}),
        (break_metrics, "metrics.jsonl: last line: got '{\"step\": -1}', expected ", {"steps_done": None}),
        (replace_metrics_by_a_folder, "metrics.jsonl: Is a directory", {"steps_done": None}),
        (break_config, "config.yaml: steps: expected a whole number", {"steps": None}),
        (link_checkpoints, "checkpoints: expected a folder, no link", {"checkpoints": ()}),
    ],
)
def test_a_broken_file_costs_what_it_says_and_nothing_else(
    folder: Path, harm: Callable[[Path], None], told: str, lost: dict[str, object]
) -> None:
    make_run(folder, status=RUNNING.end("finished"))
    sound = read(folder)
    harm(folder)
    run = read(folder)
    assert len(run.problems) == 1
    assert run.problems[0].startswith(told)
    for name in ("state", "status", "steps_done", "steps", "checkpoints"):
        assert getattr(run, name) == (lost[name] if name in lost else getattr(sound, name)), name


def test_a_checkpoint_is_complete_with_a_manifest_in_its_own_place(folder: Path) -> None:
    make_run(folder)
    make_checkpoint(folder, "step-000040", 300)
    make_checkpoint(folder, "step-000020", 200)
    make_checkpoint(folder, "step-000030", manifest=False)
    make_checkpoint(folder, ".step-000060.partial", 50)
    make_checkpoint(folder, ".step-000010.removed")
    make_checkpoint(folder, "other")
    run = read(folder)
    found = [(checkpoint.step, checkpoint.state, checkpoint.num_bytes) for checkpoint in run.checkpoints]
    assert found == [
        (10, "unfinished", 100),
        (20, "complete", 200),
        (30, "no manifest", 100),
        (40, "complete", 300),
        (60, "unfinished", 50),
    ]
    assert [checkpoint.name for checkpoint in run.complete] == ["step-000020", "step-000040"]
    assert run.checkpoint_bytes == 850


def test_a_checkpoint_on_its_way_to_being_replaced_counts_until_the_new_one_is_there(folder: Path) -> None:
    make_run(folder)
    make_checkpoint(folder, ".step-000040.replaced")
    assert [checkpoint.step for checkpoint in read(folder).complete] == [40]
    make_checkpoint(folder, "step-000040")
    assert [checkpoint.name for checkpoint in read(folder).complete] == ["step-000040"]


def test_sizes_are_those_of_all_files_and_of_nothing_behind_a_link(folder: Path, tmp_path: Path) -> None:
    make_run(folder)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "large").write_bytes(bytes(10_000))
    make_checkpoint(folder, "step-000040", 300)
    (folder / "rollouts").mkdir()
    (folder / "rollouts" / "link").symlink_to(tmp_path / "outside")
    run = read(folder)
    assert run.files["checkpoints"] == size_of(folder / "checkpoints") == 300
    assert run.files["rollouts"] < 1000
    assert run.num_bytes == sum(run.files.values()) == size_of(folder)
    assert size_of(tmp_path / "gone") == 0


def test_reading_changes_nothing(folder: Path) -> None:
    make_run(folder, status=RUNNING)
    before = everything(folder)
    read(folder)
    assert everything(folder) == before
