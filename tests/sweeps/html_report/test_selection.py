"""Which arms of a study are drawn."""

from typing import Any

from sweeps.html_report.selection import select


def test_the_baseline_and_the_best_trials_are_drawn(make_run: Any, make_study: Any) -> None:
    runs = [make_run(arm, seed) for arm in ("baseline", *(f"trial-{n:03d}" for n in range(12))) for seed in (0, 1)]
    chosen = select(runs, make_study(*range(12)))
    assert list(dict.fromkeys(run.arm for run in chosen.runs)) == [
        "baseline",
        *(f"trial-{number:03d}" for number in (11, 10, 9, 8, 7, 6, 5)),
    ]
    assert len(chosen.runs) == 16
    assert chosen.told == "the baseline and the 7 best of 12 trials, without those that are equal to another arm"


def test_less_is_better_where_the_study_minimizes(make_run: Any, make_study: Any) -> None:
    runs = [make_run(f"trial-{n:03d}") for n in range(3)]
    chosen = select(runs, make_study(*range(3), direction="minimize"))
    assert [run.arm for run in chosen.runs] == ["trial-000", "trial-001", "trial-002"]


def test_trials_that_break_a_constraint_are_drawn_only_when_all_do(make_run: Any, make_study: Any) -> None:
    runs = [make_run(f"trial-{n:03d}") for n in range(3)]
    broken = {"constraints": {"mismatch p95": 0.1}}
    assert [run.arm for run in select(runs, make_study(0, (1, broken), (2, broken))).runs] == ["trial-000"]
    chosen = select(runs, make_study((0, broken), (1, broken)))
    assert [run.arm for run in chosen.runs] == ["trial-001", "trial-000"]
    assert "(no trial keeps all constraints)" in chosen.told


def test_a_trial_without_a_step_of_its_own_or_without_an_end_is_left_out(make_run: Any, make_study: Any) -> None:
    runs = [make_run("baseline"), *(make_run(f"trial-{n:03d}") for n in range(3))]
    same = {"seeds": {"0": {"steps": 8, "executed": 0, "source": "baseline", "forked_at": 8}}}
    study = make_study(0, (1, same), (2, {"state": "running", "value": None}))
    assert [run.arm for run in select(runs, study).runs] == ["baseline", "trial-000"]
    nothing = select(runs[:1], make_study())
    assert ([run.arm for run in nothing.runs], nothing.told) == (["baseline"], "the baseline")
    assert select([], make_study()).told == "nothing"
