"""Faults on purpose: what the switch understands and what it refuses."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

import actors.faults
from actors.faults import PHASES, Faults, Strike


def strike(text: str) -> Strike:
    [found] = Faults.parse(text).strikes
    return found


@pytest.mark.parametrize("text", ["", "   ", ";", " ; ; "])
def test_nothing_asked_for_is_no_fault(text: str) -> None:
    assert Faults.parse(text) == Faults()
    assert not Faults.parse(text).drops("lm_head.weight")


def test_faults_are_separated_by_semicolons_and_kept_in_order() -> None:
    faults = Faults.parse(
        " drop tensor b.weight;keep prefix cache ; kill driver at step 2;drop tensor a.*; stop learner 1 at step 1"
    )
    assert faults.dropped_tensors == ("b.weight", "a.*")
    assert faults.keep_prefix_cache
    assert [(one.action, one.role, one.step) for one in faults.strikes] == [
        ("kill", "driver", 2),
        ("stop", "learner", 1),
    ]


def test_a_name_drops_itself_and_a_pattern_what_it_matches() -> None:
    faults = Faults.parse("drop tensor lm_head.weight; drop tensor model.layers.1.*")
    assert faults.drops("lm_head.weight")
    assert faults.drops("model.layers.1.mlp.up_proj.weight")
    assert not faults.drops("model.layers.10.mlp.up_proj.weight")
    assert not faults.drops("LM_HEAD.weight")
    assert not faults.drops("model.lm_head.weight")


def test_patterns_that_match_nothing_are_found() -> None:
    faults = Faults.parse("drop tensor a.*; drop tensor c.weight")
    assert faults.without_effect(["a.weight", "b.weight"]) == ["c.weight"]
    assert faults.without_effect(iter(["a.weight", "c.weight"])) == []


def test_a_strike_says_what_happens_to_whom_and_when() -> None:
    assert strike("stop learner 12 at step 340 in publish after 0.05 s") == Strike(
        action="stop", role="learner", index=12, step=340, phase="publish", after_s=0.05
    )


@pytest.mark.parametrize("action", ["kill", "stop"])
@pytest.mark.parametrize(("who", "role", "index"), [("rollout 1", "rollout", 1), ("scheduler", "scheduler", 0)])
def test_without_more_a_strike_falls_at_the_beginning_of_the_rollout(
    action: str, who: str, role: str, index: int
) -> None:
    expected = {"action": action, "role": role, "index": index, "step": 3, "phase": "rollout", "after_s": 0.0}
    assert {name: getattr(strike(f"{action} {who} at step 3"), name) for name in expected} == expected


def test_the_driver_can_be_killed() -> None:
    assert strike("kill driver at step 0 in record") == Strike(
        action="kill", role="driver", index=0, step=0, phase="record", after_s=0.0
    )


strikes = st.builds(
    Strike,
    action=st.sampled_from(["kill", "stop"]),
    role=st.sampled_from(["rollout", "learner"]),
    index=st.integers(0, 999_999),
    step=st.integers(0, 999_999_999),
    phase=st.sampled_from(PHASES),
    after_s=st.integers(0, 99_999_999).map(lambda hundredths: hundredths / 100),
)


@given(strikes)
def test_every_strike_on_a_worker_can_be_written(one: Strike) -> None:
    text = f"{one.action} {one.role} {one.index} at step {one.step} in {one.phase} after {one.after_s:.2f} s"
    assert strike(text) == one


@pytest.mark.parametrize(
    "part",
    [
        "drop",
        "drop tensor",
        "drop tensor a b",
        "keep cache",
        "Drop tensor a",
        "drop tensor a, keep prefix cache",
        "kill",
        "kill rollout at step 1",
        "kill rollout 0",
        "kill rollout -1 at step 1",
        "kill rollout 0 at step -1",
        "kill rollout 0 at step 1.5",
        "kill scheduler 0 at step 1",
        "kill tracker at step 1",
        "stop driver at step 1",
        "kill driver 0 at step 1",
        "Kill driver at step 1",
        "kill driver at step 1 in lunch",
        "kill driver at step 1 in",
        "kill driver at step 1 after 2",
        "kill driver at step 1 after .5 s",
        "kill driver at step 1 after -1 s",
        "kill driver at step 1 after inf s",
        "kill driver at step 1 after 1 s in record",
        "kill driver at step 12345678901",
        "kill  driver at step 1",
    ],
)
def test_an_unknown_fault_is_refused_with_itself_and_the_known_forms(part: str) -> None:
    with pytest.raises(ValueError, match=r"expected 'drop tensor NAME'.*, 'keep prefix cache', or 'kill WHO") as raised:
        Faults.parse(f"keep prefix cache; {part}")
    assert str(raised.value).startswith(repr(part))
    assert "\n" not in str(raised.value)
    assert all(phase in str(raised.value) for phase in PHASES)


def test_the_examples_in_the_docstrings_run() -> None:
    results = doctest.testmod(actors.faults)
    assert results.attempted and not results.failed
