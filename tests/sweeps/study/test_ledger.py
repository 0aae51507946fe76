"""The record of a study out of what Optuna and the folders hold: states, and what the runs cost."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from sweeps.study.ledger import accounting, study_record
from sweeps.study.record import SeedRecord, State, TrialRecord
from sweeps.study.trial import REASON, SEEDS

Shares = Mapping[int, tuple[int, int, str | None]]  # seed -> steps, executed, source


def trial(shares: Shares, state: State = "complete", number: int = 0) -> TrialRecord:
    return TrialRecord(
        number=number,
        arm=f"trial-{number:03d}",
        state=state,
        params={},
        value=None,
        constraints={},
        reason=None,
        seeds={str(seed): share(*of_seed) for seed, of_seed in shares.items()},
    )


def share(steps: int, executed: int, source: str | None) -> SeedRecord:
    return SeedRecord(steps=steps, executed=executed, source=source, forked_at=steps - executed if source else None)


def test_a_study_of_all_kinds_of_trials() -> None:
    trials = [
        trial({0: (20, 8, "baseline"), 1: (20, 20, None)}),
        trial({0: (20, 0, "baseline"), 1: (20, 0, "baseline")}),  # free
        trial({0: (20, 0, "trial-000"), 1: (20, 0, "baseline")}),  # merged
        trial({0: (20, 0, "trial-000"), 1: (20, 3, "trial-000")}),
        trial({0: (13, 5, "baseline")}, "pruned"),
        trial({}, "failed"),
    ]
    account = accounting(trials, baseline_steps=40)
    assert account.naive == 4 * 40 + 13
    assert account.executed == 8 + 20 + 3 + 5 + 40
    assert account.saved == account.naive - (account.executed - 40)
    assert (account.free, account.merged) == (1, 1)


@pytest.mark.parametrize("state", ["failed", "running"])
def test_a_trial_that_is_not_done_is_neither_free_nor_merged(state: State) -> None:
    account = accounting([trial({0: (9, 0, "baseline")}, state), trial({0: (9, 0, "trial-000")}, state)], 20)
    assert (account.free, account.merged, account.naive, account.executed) == (0, 0, 18, 20)


def test_of_no_trials_only_the_baseline_has_cost_anything() -> None:
    account = accounting([], 40)
    assert (account.executed, account.saved, account.naive, account.free, account.merged) == (40, 0, 0, 0, 0)


STEPS = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted)
RUNS = STEPS.flatmap(
    lambda steps: st.sampled_from(["baseline", "trial-000", None]).map(
        lambda source: (steps[1], steps[0] if source else steps[1], source)
    )
)
STATES = st.sampled_from(["complete", "pruned", "failed", "running"])


@given(st.lists(st.builds(trial, st.dictionaries(st.integers(0, 2), RUNS), STATES)), st.integers(0, 90))
def test_every_step_is_either_executed_or_saved(trials: list[TrialRecord], baseline: int) -> None:
    account = accounting(trials, baseline)
    assert account.executed + account.saved == account.naive + baseline
    assert 0 <= account.saved <= account.naive
    assert account.free + account.merged <= len(trials)


def test_the_record_says_of_each_trial_how_it_stands(sweeps: Any, drive: Any) -> None:
    changes = {"constraints": [{"metric": "reward/mean", "at_least": 0.5}], "trials": 5}
    sweep, store = sweeps.read(changes), sweeps.open(changes)
    drive(store, sweep, sweeps.folder).run(0)
    for number, state in ((1, TrialState.PRUNED), (2, TrialState.FAIL), (3, None)):
        begun = store._begin(number, None, None)
        begun.suggest_float("scheduler.ratio", 1.2, 3.0)
        begun.report(0.25, 3)
        begun.set_constraint("c", -0.5)
        if state is not None:
            begun.set_user_attr(REASON, f"why {number}")
            begun.set_user_attr(SEEDS, json.dumps({"0": share(20, 8, "baseline").model_dump()}))
            store.tell(begun, None, state)
    (sweeps.folder / "baseline" / "seed-1").mkdir(parents=True)
    rows = '{"step": 0, "reward/mean": 0.5}\n{"step": 1, "reward/mean": 0.5}\n{"st'
    (sweeps.folder / "baseline" / "seed-1" / "metrics.jsonl").write_text(rows)
    record = study_record(sweep, sweeps.runs, store.trials())
    assert [entry.state for entry in record.trials] == ["complete", "pruned", "failed", "running"]  # not the waiting
    assert [entry.reason for entry in record.trials] == [None, "why 1", "why 2", None]
    assert [entry.value is None for entry in record.trials] == [False, True, True, True]  # Optuna gives a pruned one's
    assert [entry.constraints for entry in record.trials] == [{}, *[{"c": -0.5}] * 3]
    assert record.trials[0].params["scheduler.ratio"] == record.trials[0].value
    assert record.trials[1].seeds == {"0": share(20, 8, "baseline")}
    assert (record.accounting.executed, record.accounting.naive) == (8 + 8 + 2, 40)
    assert (record.name, record.steps, record.seeds, record.sharing) == ("ratios", 20, [0, 1], True)
    assert record.space["scheduler.ratio"] | {"low": 1.2, "high": 3.0} == record.space["scheduler.ratio"]


def test_without_sharing_there_is_no_baseline_to_count(sweeps: Any) -> None:
    sweep = sweeps.read({"sharing": {"enabled": False}})
    (sweeps.folder / "baseline" / "seed-0").mkdir(parents=True)
    (sweeps.folder / "baseline" / "seed-0" / "metrics.jsonl").write_text('{"step": 0}\n')
    record = study_record(sweep, sweeps.runs, [])
    assert (record.sharing, record.accounting.executed) == (False, 0)
