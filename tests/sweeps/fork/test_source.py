"""What another run may begin with: a run that differs in its scheduler alone, read as it stands."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import yaml_files
from orchestrator.run.status import RunStatus
from orchestrator.yaml_files import read_mapping
from sweeps.fork.source import Source


def test_a_finished_run_is_over(made: Any) -> None:
    folder = made.run("baseline", made.config())
    source = Source.read(folder, made.config(made.triggered(20.0)), seed=0)
    assert source is not None
    assert source.arm == "baseline"
    assert source.end == "finished"
    assert list(source.rows()) == made.rows(folder)
    assert sorted(source.checkpoints()) == [6, 12, 18, 20]
    assert source.checkpoints()[12] == folder / "checkpoints" / "step-000012"


def test_an_interrupted_one_is_not(made: Any) -> None:
    source = Source.read(made.run("baseline", made.config(), until=9), made.config(), seed=0)
    assert source is not None
    assert source.end is None
    assert len(source.lines) == 9


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_neither_is_one_that_has_all_steps_but_did_not_come_to_its_end(made: Any, status: Any) -> None:
    folder = made.run("baseline", made.config())
    stored = RunStatus.read(folder)
    assert stored is not None
    replace(stored, status=status).write(folder)
    source = Source.read(folder, made.config(), seed=0)
    assert source is not None
    assert source.end is None


@pytest.mark.parametrize(("collapses", "end"), [(True, "stopped"), (False, None)])
def test_one_that_was_stopped_is_over_for_others_only_if_it_had_collapsed(
    made: Any, collapses: bool, end: str | None
) -> None:
    trace = [{"reward/mean": 0.0 if collapses and step > 2 else 1.0} for step in range(made.steps)]
    whole = made.rows(made.run("whole", made.config(), trace))
    verdict = next((row["step"] for row in whole if "stability/collapsed" in row), 7)
    folder = made.run("trial-000", made.config(), trace, until=verdict + 1)
    status = RunStatus.read(folder)
    assert status is not None
    status.end("stopped").write(folder)
    source = Source.read(folder, made.config(), seed=0)
    assert source is not None
    assert source.end == end


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 30},
        {"evaluation": {"every": 5}},
        {"name": "other"},
        {"learner": {"workers": 2}},
        {"rollout": {"group_size": 4}},
        {"shadow": {"beside": {"ratio": 1.2}}},
        {"stability": {"patience": 3}},
        {"record_rollouts": {"every": 1}},
    ],
)
def test_a_run_that_differs_in_anything_that_its_rows_hang_on_is_none(made: Any, changes: dict[str, Any]) -> None:
    assert Source.read(made.run("baseline", made.config(), until=2), made.config(**changes), seed=0) is None


@pytest.mark.parametrize(
    "changes",
    [{"checkpoint": {"every": 3, "keep": 1}}, {"cluster": {"call_timeout_s": 9.0}}, {"tracking": {"experiment": "x"}}],
)
def test_where_it_runs_and_what_is_kept_may_differ(made: Any, changes: dict[str, Any]) -> None:
    config = made.config(made.triggered(20.0), **changes)
    assert Source.read(made.run("baseline", made.config(), until=2), config, seed=0) is not None


def test_another_seed_is_none(made: Any) -> None:
    assert Source.read(made.run("baseline", made.config(), until=2, seed=1), made.config(), seed=0) is None


def test_fields_that_a_stored_config_lacks_count_with_their_defaults(made: Any) -> None:
    folder = made.run("baseline", made.config(), until=2)
    stored = read_mapping(folder / "config.yaml")
    del stored["export"], stored["learner"]["grad_clip"]
    (folder / "config.yaml").write_text(yaml_files.dump(stored))
    assert Source.read(folder, made.config(), seed=0) is not None


def test_what_cannot_be_read_is_none(made: Any, tmp_path: Path) -> None:
    assert Source.read(tmp_path / "nothing", made.config(), seed=0) is None
    for name, content in (
        ("run.json", "{"),
        ("config.yaml", "steps: [1"),
        ("config.yaml", "steps: 3"),
        ("metrics.jsonl", None),
    ):
        folder = made.run(f"broken-{name}-{content}", made.config(), until=2)
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_text(content)
        assert Source.read(folder, made.config(), seed=0) is None
