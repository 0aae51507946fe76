"""The tables that set arms side by side, by hand."""

from collections.abc import Sequence
from io import StringIO

import numpy as np
from rich.console import Console
from rich.table import Table

from sweeps.curves import Curves
from sweeps.summary import by_arm, difference_table, summary_table, summary_tables

Rows = list[dict[str, float]]


def curves(rows: Rows, arm: str = "decay", seed: int = 0) -> Curves:
    steps = np.array([int(row["step"]) for row in rows], np.int64)
    return Curves(arm=arm, seed=seed, steps=steps, rows=tuple(rows))


def of(key: str, *values: float) -> Rows:
    return [{"step": step, key: value} for step, value in enumerate(values)]


def rewards(*values: float) -> Rows:
    return [
        {"step": step, "reward/mean": value, "response/length_mean": 10.0 + step, "scheduler/lr": 1e-6}
        for step, value in enumerate(values)
    ]


def lines(table: Table, width: int = 300) -> list[str]:
    out = StringIO()
    Console(file=out, width=width).print(table, markup=False)
    return out.getvalue().splitlines()


def cells(table: Table) -> dict[str, list[str]]:
    """The cells of each row by its heading, lines of a cell joined by a slash; under "arms" the header."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in lines(table):
        if "│" not in line and "┃" not in line:
            continue
        first, *rest = [cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")]
        if not found:
            found["arms"] = rest
        elif first:
            heading = first
            found[heading] = rest
        else:
            found[heading] = [f"{above}/{cell}".rstrip("/") for above, cell in zip(found[heading], rest, strict=True)]
    return found


def summary(runs: Sequence[Curves]) -> dict[str, list[str]]:
    return cells(summary_table(by_arm(runs)))


def differences(runs: Sequence[Curves]) -> dict[str, list[str]]:
    return cells(difference_table(by_arm(runs)))


def test_arms_and_runs_keep_the_order_in_which_they_come() -> None:
    runs = [curves(rewards(0.1), arm=arm, seed=seed) for seed in (3, 1) for arm in ("b", "a")]
    assert {arm: [run.seed for run in those] for arm, those in by_arm(runs).items()} == {"b": [3, 1], "a": [3, 1]}


def test_the_table_has_a_column_per_arm_with_means_and_intervals_over_its_seeds() -> None:
    constant = curves(rewards(*[0.0] * 5, 0.5), arm="baseline")
    one = curves(rewards(*[0.1] * 5, 0.6, *[0.2] * 5), seed=0)
    other = curves(rewards(*[0.3] * 5, 0.8), seed=4)
    table = summary([constant, one, other])
    assert table["arms"] == ["baseline", "decay"]
    assert table["seeds"] == ["0", "0, 4"]
    assert table["steps"] == ["6", "6-11"]
    assert table["reward, first"] == ["0.000", "0.200/[0.100, 0.300]"]
    # Best: 0.1 in a window with the 0.6 of run 0 (4 x 0.2 + 0.6 = 1.4 / 5 = 0.28), and 0.4 of run 4.
    assert table["reward, best"] == ["0.100", "0.340/[0.280, 0.400]"]
    assert table["reward, last"] == ["0.100", "0.300/[0.200, 0.400]"]  # each run's own last
    assert table["length, last"] == ["13.0", "15.5/[13.0, 18.0]"]
    assert table["learning rate, last"] == ["1.00e-6", "1.00e-6/[1.0e-6, 1.0e-6]"]
    assert "smoothed norm, last" not in table


def test_validation_stands_in_the_table_where_it_was_recorded() -> None:
    rows = rewards(0.1, 0.2, 0.3)
    rows[0]["eval/aime24/avg@8"], rows[2]["eval/aime24/avg@8"] = 0.5, 0.25
    table = summary([curves(rewards(0.1), arm="baseline"), curves(rows)])
    assert table["aime24 avg@8, best"] == ["-", "0.500"]
    assert table["aime24 avg@8, last"] == ["-", "0.250"]


def test_a_figure_that_only_some_seeds_have_says_how_many() -> None:
    runs = [curves(of("gradient/norm_smoothed", value), seed=seed) for seed, value in enumerate((1.0, 2.0))]
    assert summary([*runs, curves(rewards(0.1), seed=2)])["smoothed norm, last"] == ["1.5/[1, 2]/(2 of 3 seeds)"]


def test_what_happened_to_the_learning_rate_is_told_once_for_the_seeds_that_share_it() -> None:
    surged: Rows = [{"step": 3, "scheduler/event/surge": 1.0}, {"step": 5, "scheduler/event/decay": 1.0}]
    surged += [{"step": 9, "scheduler/event/decay": 1.0, "scheduler/event/floor": 1.0}]
    assert summary([curves(surged, seed=3)])["events"] == ["surge 3; decay 5, 9; floor 9"]
    assert summary([curves(rewards(0.1))])["events"] == ["none"]
    several = summary([curves(surged, seed=3), curves(rewards(0.1), seed=4), curves(surged, seed=5)])
    assert several["events"] == ["seeds 3, 5: surge 3; decay 5, 9; floor 9/seed 4: none"]


def test_collapses_are_counted_with_their_steps_and_reasons() -> None:
    early, late = of("gradient/nonfinite", *[1.0] * 12), of("gradient/nonfinite", *[0.0] * 5, *[1.0] * 12)
    low = of("reward/mean", *[0.6] * 10, *[0.0] * 16)  # collapses at step 25, see tests/orchestrator/test_stability.py
    assert summary([curves(early)])["collapsed"] == ["1 of 1, step 9: nonfinite_gradient"]
    assert summary([curves(rewards(0.1))])["collapsed"] == ["0 of 1"]
    runs = [curves(rows, seed=seed) for seed, rows in enumerate((early, late, low, rewards(0.1)))]
    assert summary(runs)["collapsed"] == ["3 of 4 (75%), steps 9-25: nonfinite_gradient, reward"]
    assert summary([curves(early, seed=0), curves(early, seed=1)])["collapsed"] == [
        "2 of 2 (100%), step 9: nonfinite_gradient"
    ]


def test_differences_are_arm_minus_first_arm_over_common_seeds() -> None:
    base = [curves(rewards(value), arm="baseline", seed=seed) for seed, value in enumerate((0.1, 0.5, 0.9))]
    decay = [curves(rewards(value), arm="decay", seed=seed) for seed, value in ((1, 0.6), (2, 1.2), (7, 0.0))]
    table = differences(
        [*base, *decay, curves(rewards(0.0), arm="other", seed=0), curves(rewards(0.0), arm="apart", seed=9)]
    )
    assert table["arms"] == ["decay", "other", "apart"]
    assert table["common seeds"] == ["1, 2", "0", "none"]
    assert table["reward, last"] == ["+0.200/[+0.100, +0.300]", "-0.100", "-"]
    assert "reward, first" not in table
    assert "learning rate, last" not in table


def test_a_single_arm_has_nothing_to_be_compared_with() -> None:
    assert len(summary_tables([curves(rewards(0.1))])) == 1
    assert len(summary_tables([curves(rewards(0.1)), curves(rewards(0.1), arm="b")])) == 2


def test_five_arms_with_three_seeds_fit_120_columns_with_every_interval_on_one_line() -> None:
    keys = {"reward/mean": 0.4, "response/length_mean": 3456.7, "mismatch/log_ppl_abs_diff": 1.23e-4}
    keys |= {"gradient/norm_smoothed": 0.1234, "gradient/noise_scale": 1234.5, "eval/aime24/avg@32": 0.2}
    runs = [
        curves(
            [{"step": 0, "scheduler/lr": 1e-6, **{key: value * (1 + seed / 9) for key, value in keys.items()}}],
            arm,
            seed,
        )
        for arm in ("baseline", "decay", "token_tis", "decay_tis", "lr_zero")
        for seed in range(3)
    ]
    for table in summary_tables(runs):
        printed = lines(table, width=120)
        assert max(map(len, printed)) <= 120
        for line in printed:
            assert line.count("[") == line.count("]")


def test_arms_that_find_no_room_side_by_side_go_into_further_tables() -> None:
    runs = [curves(rewards(0.1), arm) for arm in ("a", "b", "c", "d")]
    tables = [cells(table) for table in summary_tables(runs, lambda table: len(table.columns) <= 3)]
    assert [table["arms"] for table in tables] == [["a", "b"], ["c", "d"], ["b", "c"], ["d"]]
    assert all(table["reward, last"] == ["+0.000"] * len(table["arms"]) for table in tables[2:])
    narrow = [cells(table)["arms"] for table in summary_tables(runs, lambda _: False)]
    assert narrow == [["a"], ["b"], ["c"], ["d"], ["b"], ["c"], ["d"]]


def test_a_metric_that_no_run_has_leaves_the_table_standing() -> None:
    assert list(summary([curves(of("policy/entropy", 1.0))])) == ["arms", "seeds", "steps", "collapsed", "events"]
