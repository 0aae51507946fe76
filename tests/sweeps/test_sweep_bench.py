"""What a study comes to as figures; the study itself is in tests/end_to_end/test_sweep.py."""

import json
from pathlib import Path

import pytest

from orchestrator.run.folder import METRICS, run_path
from sweeps.study.record import Accounting, ObjectiveRecord, SeedRecord, StudyRecord, TrialRecord
from sweeps.sweep_bench import TEMPORARY, alone_s, figures_of
from sweeps.sweep_file import SweepFile


def trial(number: int, **seeds: SeedRecord) -> TrialRecord:
    return TrialRecord(
        number=number,
        arm=f"trial-{number:03d}",
        state="complete",
        params={},
        value=0.5,
        constraints={},
        reason=None,
        seeds={name.removeprefix("seed_"): share for name, share in seeds.items()},
    )


def study(*trials: TrialRecord, executed: int, naive: int) -> StudyRecord:
    return StudyRecord(
        name="ratios",
        direction="maximize",
        objective=ObjectiveRecord(metric="reward/mean", last=3, aggregate="mean"),
        space={},
        seeds=[0, 1],
        steps=2,
        sharing=True,
        trials=list(trials),
        accounting=Accounting(executed=executed, saved=0, naive=naive, free=0, merged=0),
    )


def test_steps_and_time_are_shares_of_what_the_trials_would_need_alone() -> None:
    share, executed, naive, time, *_ = figures_of(study(executed=605, naive=1626), took_s=300.0, naive_s=600.0)
    assert share.value == pytest.approx(605 / 1626)
    assert share.holds
    assert (executed.value, naive.value, time.value) == (605, 1626, 0.5)
    share, *_ = figures_of(study(executed=6, naive=10), took_s=1.0, naive_s=1.0)
    assert share.holds is False


def test_the_time_of_a_trial_alone_is_that_of_all_its_steps_whoever_ran_them(tmp_path: Path) -> None:
    one, shared = SeedRecord(steps=2, executed=2), SeedRecord(steps=2, executed=0, source="baseline", forked_at=2)
    record = study(trial(0, seed_0=one), trial(1, seed_0=shared, seed_1=one), executed=4, naive=6)
    rows = [{"step": 0, "time/step": 1.0}, {"step": 1, "time/step": 2.0, "time/record": 0.5}]
    for arm, seed in (("trial-000", 0), ("trial-001", 0), ("trial-001", 1), ("baseline", 0)):
        folder = run_path(tmp_path, "ratios", arm, seed)
        folder.mkdir(parents=True)
        (folder / METRICS).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert alone_s(record, tmp_path) == pytest.approx(3 * 3.5)


def test_the_study_of_a_benchmark_leaves_nothing_outside_of_its_folder() -> None:
    shipped = Path(__file__).parents[2] / "examples" / "sweep.yaml"
    swept = SweepFile.read(shipped, [*TEMPORARY])
    assert swept.config.storage is None
    config = swept.baseline_config()
    assert config.tracking.uri is None
    assert config.checkpoint is not None and config.checkpoint.storage is None
