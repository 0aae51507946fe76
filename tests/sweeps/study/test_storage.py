"""A study in its storage: made once, gone on with by those who have the same in mind, and refused in one line."""

import time
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from orchestrator.config_errors import ConfigError
from sweeps.study.journal import JOURNAL
from sweeps.study.samplers import pruner_of, sampler_of
from sweeps.study.storage import StudyStore


def states(store: StudyStore) -> list[str]:
    return [trial.state.name.lower() for trial in store.trials()]


def waiting_for(store: StudyStore) -> list[Any]:
    return [trial.system_attrs["fixed_params"] for trial in store.trials()]


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as raised:
        action()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_study_is_made_once_and_all_of_its_trials_wait(sweeps: Any) -> None:
    made = sweeps.open()
    assert states(made) == ["waiting"] * 6
    assert made.open_numbers() == [0, 1, 2, 3, 4, 5]
    joined = sweeps.open(resume=True)
    assert joined.uid == made.uid != ""
    assert states(joined) == ["waiting"] * 6
    assert made.study().direction is optuna.study.StudyDirection.MAXIMIZE


def test_a_study_that_is_there_is_not_made_again(sweeps: Any) -> None:
    sweeps.open()
    expected = f"a study that is not in {sweeps.folder / JOURNAL} yet; --resume goes on with it, or joins in"
    assert refused(sweeps.open).endswith(f"ratios.yaml: name: got 'ratios', expected {expected}")


def test_what_is_enqueued_comes_first_and_the_rest_of_it_is_sampled(sweeps: Any, drive: Any) -> None:
    given = [{"scheduler.ratio": 2.0, "scheduler.patience": 3}, {"scheduler.patience": 5}]
    store = sweeps.open({"enqueue": given, "trials": 4})
    assert waiting_for(store) == [*given, {}, {}]
    first, second, *_ = drive(store, sweeps.read({"enqueue": given}), sweeps.folder).work()
    assert first.params == given[0]
    assert second.params["scheduler.patience"] == 5
    assert 1.2 <= second.params["scheduler.ratio"] <= 3.0


def test_a_claim_is_one_drivers_and_over_when_the_trial_is(sweeps: Any) -> None:
    sweep, ours, theirs = sweeps.read(), sweeps.open(), sweeps.open(resume=True)
    folder = sweeps.folder / "trial-002"

    def claim(store: StudyStore) -> Any:
        return store.claim(2, folder, sampler_of(sweep.config.sampler, 2), pruner_of(sweep.config.pruner))

    with claim(ours) as trial:
        assert trial is not None
        assert trial.number == 2
        with claim(theirs) as other:
            assert other is None
        assert theirs.open_numbers() == [0, 1, 3, 4, 5, 2]  # those first that nobody has
    with claim(theirs) as trial:  # whoever had it has let go of it
        assert trial is not None
        theirs.tell(trial, 1.0, TrialState.COMPLETE)
    with claim(ours) as trial:
        assert trial is None
    assert ours.open_numbers() == [0, 1, 3, 4, 5]


@pytest.mark.parametrize(
    ("changes", "experiment", "file", "message"),
    [
        ({"space": {"scheduler.ratio": {"high": 2.5}}}, {}, "ratios", "space.scheduler.ratio.high: got 2.5, expected"),
        ({"space": {"scheduler.lr": {"kind": "float", "low": 1e-4, "high": 1e-3}}}, {}, "ratios", "not set"),
        ({"objective": {"last": 5}}, {}, "ratios", "objective.last: got 5, expected the value of the study that is"),
        ({"sampler": {"seed": 1}}, {}, "ratios", "sampler.seed: got 1"),
        ({"seeds": [0]}, {}, "ratios", "seeds: got [0], expected the value of the study that is resumed: null"),
        ({}, {"steps": 25}, "e", "steps: got 25, expected the value of the study that is resumed: 20"),
        ({}, {"scheduler": {"lr": 1e-4}}, "e", "scheduler.lr: got 0.0001"),
    ],
)
def test_what_decides_the_numbers_does_not_change_when_a_study_goes_on(
    sweeps: Any, changes: dict[str, Any], experiment: dict[str, Any], file: str, message: str
) -> None:
    sweeps.open()
    told = refused(lambda: sweeps.open(changes, resume=True, **experiment))
    assert f"/{file}.yaml: " in told
    assert message in told
    assert "object at" not in told


def test_how_it_is_worked_at_may_change(sweeps: Any) -> None:
    sweeps.open()
    changes = {"parallel": 2, "enqueue": [{"scheduler.ratio": 2.0}]}
    assert waiting_for(sweeps.open(changes, resume=True, tracking={"experiment": "x"})) == [{}] * 6


def test_a_database_is_as_good_as_a_journal(sweeps: Any, drive: Any) -> None:
    changes = {"storage": f"sqlite:///{sweeps.runs}.db", "trials": 3}
    store = sweeps.open(changes)
    assert "got 'ratios', expected a study that is not in sqlite:///" in refused(lambda: sweeps.open(changes))
    uid = sweeps.open(changes, resume=True).uid
    assert len(list(drive(store, sweeps.read(changes), sweeps.folder).work())) == 3
    assert (uid, states(sweeps.open(changes, resume=True))) == (store.uid, ["complete"] * 3)
    assert not (sweeps.folder / JOURNAL).exists()


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("postgresql://user:secret@127.0.0.1:1/x", "OperationalError"),
        ("sqlite:////nowhere/at/all.db", "OperationalError"),
        ("cobol://user:secret@host/x", "NoSuchModuleError"),
        ("mysql+mysqldb://user:secret@127.0.0.1:1/x", "ModuleNotFoundError"),
        ("postgresql://user:secret@127.0.0.1:port/x", "ValueError"),
        ("postgresql://user:a/secret@127.0.0.1:1/x", "OperationalError"),
        ("postgresql://127.0.0.1:1/x?user=user&password=secret", "OperationalError"),
        ("somewhere", "ArgumentError"),
    ],
)
def test_a_storage_that_cannot_be_used_is_told_in_time(sweeps: Any, url: str, cause: str) -> None:
    began = time.monotonic()
    message = refused(lambda: sweeps.open({"storage": url}))
    assert time.monotonic() - began < 15
    assert "ratios.yaml: storage: got " in message
    assert f"expected a storage that answers ({cause}: " in message
    assert "secret" not in message


def test_a_journal_that_is_none_is_told(sweeps: Any) -> None:
    sweeps.folder.mkdir(parents=True)
    (sweeps.folder / JOURNAL).write_text("not json\n" * 2)
    message = refused(sweeps.open)
    assert "ratios.yaml: storage: got '/" in message
    assert "expected a file that Optuna can use (JSONDecodeError: " in message
    (sweeps.folder / JOURNAL).unlink()
    (sweeps.folder / JOURNAL).mkdir()
    assert "(IsADirectoryError: " in refused(sweeps.open)


def test_a_folder_that_cannot_be_made_is_told(sweeps: Any) -> None:
    sweeps.runs.write_text("")
    assert refused(sweeps.open) == f"{sweeps.folder}: expected a folder that can be made (Not a directory)"
