"""Which arms no other one beats."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sweeps.curves import Curves
from sweeps.html_report.frontier import frontier, pareto

pairs = st.dictionaries(st.integers(0, 30).map(str), st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1)


@given(pairs)
def test_every_arm_is_chosen_or_beaten_by_a_chosen_one(points: dict[str, tuple[int, int]]) -> None:
    best = pareto(points)
    assert best
    for name, (much, little) in points.items():
        better = [other for other in best if points[other][0] >= much and points[other][1] <= little]
        assert better and (name in best) == all(points[other] == points[name] for other in better)


def test_points_are_means_over_seeds_of_the_last_validation_and_mismatch(make_run: Any) -> None:
    runs = [
        make_run("baseline", mismatch=0.01),
        make_run("good", 0, accuracy=0.6),
        make_run("good", 1, accuracy=0.6),
        make_run("running", accuracy=0.9),
    ]
    found = frontier(runs, ["baseline", "good"])
    assert found.reached == "held_out avg@4, last"
    assert list(found.points) == ["baseline", "good"]
    assert abs(found.points["good"].reached - 0.605) < 1e-12
    assert [point.is_best for point in found.points.values()] == [False, True]


def test_without_validation_it_is_the_reward_and_without_mismatch_there_is_none(make_run: Any) -> None:
    run = make_run("a")

    def without(*keys: str) -> Curves:
        rows = tuple({key: value for key, value in row.items() if key not in keys} for row in run.rows)
        return Curves(arm="a", seed=0, steps=run.steps, rows=rows)

    assert frontier([without("eval/held_out/avg@4")], ["a"]).reached == "reward, last"
    assert frontier([without("mismatch/log_ppl_abs_diff")], ["a"]).points == {}
    assert frontier([], ["a"]).points == {}
