"""Faults on purpose: what the switch understands and what it refuses."""

import doctest

import pytest

import actors.faults
from actors.faults import Faults


@pytest.mark.parametrize("text", ["", "   ", ";", " ; ; "])
def test_nothing_asked_for_is_no_fault(text: str) -> None:
    assert Faults.parse(text) == Faults()
    assert not Faults.parse(text).drops("lm_head.weight")


def test_faults_are_separated_by_semicolons_and_kept_in_order() -> None:
    faults = Faults.parse(" drop tensor b.weight;keep prefix cache ; drop tensor a.*")
    assert faults == Faults(dropped_tensors=("b.weight", "a.*"), keep_prefix_cache=True)


def test_a_name_drops_itself_and_a_pattern_what_it_matches() -> None:
    faults = Faults.parse("drop tensor lm_head.weight; drop tensor model.layers.1.*")
    assert faults.drops("lm_head.weight")
    assert faults.drops("model.layers.1.mlp.up_proj.weight")
    assert not faults.drops("model.layers.10.mlp.up_proj.weight")
    assert not faults.drops("LM_HEAD.weight")
    assert not faults.drops("model.lm_head.weight")


@pytest.mark.parametrize(
    "part",
    ["drop", "drop tensor", "drop tensor a b", "keep cache", "Drop tensor a", "drop tensor a, keep prefix cache"],
)
def test_an_unknown_fault_is_refused_with_itself_and_the_known_forms(part: str) -> None:
    with pytest.raises(ValueError, match=r"expected 'drop tensor NAME'.* or 'keep prefix cache'") as raised:
        Faults.parse(f"keep prefix cache; {part}")
    assert str(raised.value).startswith(repr(part))


def test_the_example_in_the_docstring_runs() -> None:
    results = doctest.testmod(actors.faults)
    assert results.attempted and not results.failed
