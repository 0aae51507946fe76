"""The tables as HTML."""

from typing import Any

from rich.table import Table

from sweeps.html_report.tables import rich_table, shown, tiles, trial_rows, trials_table


def test_a_terminal_table_is_kept_cell_for_cell_and_escaped() -> None:
    table = Table("", "<arm>", title="a & b")
    table.add_row("reward", "0.5\n[0.4, 0.6]")
    html = rich_table(table)
    assert "<caption>a &amp; b</caption>" in html
    assert '<th scope="col">&lt;arm&gt;</th>' in html
    assert '<tr><th scope="row">reward</th><td>0.5<br>[0.4, 0.6]</td></tr>' in html


def test_a_trial_has_a_row_with_its_parameters_constraints_and_cost(make_study: Any) -> None:
    study = make_study(1, (2, {"state": "failed", "value": None, "constraints": {}, "reason": "lost", "seeds": {}}))
    head, rows = trial_rows(study)
    assert head == [
        *["trial", "state", "value", "feasible", "mismatch p95"],
        *["scheduler.kind", "scheduler.ratio", "scheduler.patience"],
        *["steps", "executed", "shared with", "reason"],
    ]
    assert rows[0] == [1, "complete", 0.51, True, -0.001, "length_triggered", 1.6, 2, 16, 6, "baseline to step 5", None]
    assert rows[1] == [2, "failed", None, None, None, "signal_triggered", None, 3, 0, 0, None, "lost"]


def test_a_trial_without_a_step_of_its_own_says_whose_it_has(make_study: Any) -> None:
    seeds = {"0": {"steps": 8, "executed": 0, "source": "trial-001", "forked_at": 8}}
    _, rows = trial_rows(make_study(1, (2, {"seeds": seeds})))
    assert rows[1][-4:] == [8, 0, "trial-001 throughout", None]


def test_text_of_a_trial_is_escaped_and_the_best_one_marked(make_study: Any) -> None:
    html = trials_table(make_study(1, (2, {"state": "pruned", "value": None, "reason": '<script>"alert(1)"</script>'})))
    assert "<script>" not in html
    assert "&lt;script&gt;&quot;alert(1)&quot;&lt;/script&gt;" in html
    assert html.count("class=best") == 1
    assert 'data-sort="0.51"' in html


def test_the_cost_is_told_and_nothing_is_divided_by_zero(make_study: Any) -> None:
    assert "<dd>10 (31%)</dd>" in tiles(make_study())
    empty = {"executed": 0, "saved": 0, "naive": 0, "free": 0, "merged": 0}
    assert "<dd>0</dd>" in tiles(make_study(accounting=empty))


def test_values_are_shown_in_a_few_characters() -> None:
    assert [shown(value) for value in (None, True, False, 1.23456789e-7, 3, "x")] == [
        *["–", "yes", "no"],
        *["1.2346e-07", "3", "x"],
    ]
