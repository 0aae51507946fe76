"""The record of a study: what is written is what is read, and the best trial of it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config_errors import ConfigError
from sweeps.study.record import STUDY, Accounting, ObjectiveRecord, SeedRecord, StudyRecord, TrialRecord

FINITE = st.floats(allow_nan=False, allow_infinity=False)
SEEDS = st.dictionaries(
    st.integers(0, 9).map(str),
    st.builds(SeedRecord, steps=st.integers(0, 99), executed=st.integers(0, 99), source=st.none() | st.text()),
    max_size=2,
)
TRIALS = st.lists(
    st.builds(
        TrialRecord,
        params=st.dictionaries(st.text(), FINITE | st.integers() | st.text() | st.booleans() | st.none(), max_size=4),
        value=st.none() | FINITE,
        constraints=st.dictionaries(st.text(), FINITE, max_size=2),
        seeds=SEEDS,
    ),
    max_size=3,
)


def trial(number: int, value: float | None = None, **changes: Any) -> TrialRecord:
    fields: dict[str, Any] = {
        "number": number,
        "arm": f"trial-{number:03d}",
        "state": "complete",
        "params": {"scheduler.ratio": 1.5},
        "value": value,
        "constraints": {},
        "reason": None,
        "seeds": {"0": SeedRecord(steps=20, executed=8, source="baseline", forked_at=12)},
    }
    return TrialRecord(**(fields | changes))


def study(*trials: TrialRecord, **changes: Any) -> StudyRecord:
    fields: dict[str, Any] = {
        "name": "ratios",
        "direction": "maximize",
        "objective": ObjectiveRecord(metric="reward/mean", last=3, aggregate="mean"),
        "space": {"scheduler.ratio": {"kind": "float", "low": 1.2, "high": 3.0, "log": False}},
        "seeds": [0, 1],
        "steps": 20,
        "sharing": True,
        "trials": list(trials),
        "accounting": Accounting(executed=28, saved=12, naive=20, free=0, merged=0),
    }
    return StudyRecord(**(fields | changes))


def best_number(*trials: TrialRecord, **changes: Any) -> int | None:
    best = study(*trials, **changes).best
    return None if best is None else best.number


@given(trials=TRIALS, name=st.text())
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, trials: list[TrialRecord], name: str
) -> None:
    folder = tmp_path_factory.mktemp("study")
    written = study(*trials, name=name)
    written.write(folder)
    read = StudyRecord.read(folder)
    assert read == written
    assert repr(read) == repr(written)  # 1, 1.0 and true are not the same parameter
    assert os.listdir(folder) == [STUDY]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(trial(0, 0.5)).write(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        study(trial(0, 0.5), trial(1, 0.6)).write(tmp_path)
    assert len(StudyRecord.read(tmp_path).trials) == 1
    assert os.listdir(tmp_path) == [STUDY]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the record of a study (Expecting value"),
        (b"{", "expected the record of a study (Expecting property name"),
        (b"\xff\xfe\xfd", "expected the record of a study ("),
        (b"[]", "expected a mapping"),
        (b"null", "expected a mapping"),
        (b"{}", "name: expected a value: it is missing"),
        (b'{"name": 3}', "name: got 3, expected a valid string"),
        (b'{"trials": [{"number": "x"}]}', "study.json: "),
    ],
)
def test_a_broken_record_is_told_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / STUDY).write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        StudyRecord.read(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / STUDY}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("state", "field"), [("done", "trials.0.state"), (None, "trials.0.state")])
def test_the_field_that_is_wrong_is_named(tmp_path: Path, state: str | None, field: str) -> None:
    tree = study(trial(0, 0.5)).model_dump(mode="json")
    tree["trials"][0]["state"] = state
    (tmp_path / STUDY).write_text(json.dumps(tree))
    with pytest.raises(ConfigError) as raised:
        StudyRecord.read(tmp_path)
    assert raised.value.field == field


def test_a_record_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study\.json: expected a readable file \(No such file or directory\)"):
        StudyRecord.read(tmp_path)


def test_the_best_is_the_first_of_the_best_in_the_studys_direction() -> None:
    trials = [trial(0, 0.5), trial(1, 0.7), trial(2, 0.7), trial(3, -0.1), trial(4, -0.1)]
    assert best_number(*trials) == 1
    assert best_number(*trials, direction="minimize") == 3
    assert best_number(trial(0, -0.5), trial(1, 0.0), trial(2, -0.2)) == 1


def test_the_best_keeps_all_constraints_and_is_complete() -> None:
    kept, edge, broken = {"a": -0.1, "b": -0.2}, {"a": 0.0}, {"a": -0.1, "b": 0.001}
    assert best_number(trial(0, 0.9, constraints=broken), trial(1, 0.5, constraints=kept)) == 1
    assert best_number(trial(0, 0.4, constraints=kept), trial(1, 0.5, constraints=edge)) == 1
    ended = [trial(n, None, state=state) for n, state in enumerate(("pruned", "failed", "running"))]
    assert best_number(*ended, trial(3, -5.0)) == 3
    assert best_number(*ended) is best_number() is best_number(trial(0, 0.5, constraints=broken)) is None


@pytest.mark.parametrize(
    ("states", "has_failed"),
    [([], False), (["failed", "failed"], True), (["failed", "pruned"], False), (["failed", "running"], False)],
)
def test_a_study_has_failed_when_every_trial_has(states: list[str], has_failed: bool) -> None:
    assert study(*(trial(n, state=state) for n, state in enumerate(states))).has_failed is has_failed
