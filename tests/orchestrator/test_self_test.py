"""The pure parts of the weight-sync self-test: probes, and the parts of a model that tensors belong to."""

import doctest
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import orchestrator.self_test
from orchestrator.self_test import WeightSyncError, _cut, part_of, probe_lengths, weight_groups

NAMES = [
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.10.mlp.down_proj.weight",
    "model.norm.weight",
    "lm_head.weight",
]


@given(st.integers(1, 1024))
def test_one_probe_is_longer_than_two_blocks_and_the_others_are_short(block_size: int) -> None:
    *short, longest = probe_lengths(block_size)
    assert longest > 2 * block_size
    assert short and max(short) < 32


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.embed_tokens.weight", "embedding"),
        ("transformer.wte.weight", "embedding"),
        ("model.layers.0.self_attn.q_proj.weight", "layer 0"),
        ("model.layers.10.input_layernorm.weight", "layer 10"),
        ("transformer.h.3.ln_1.weight", "layer 3"),
        ("model.language_model.layers.2.mlp.experts.7.up_proj.weight", "layer 2"),
        ("model.norm.weight", "final norm"),
        ("transformer.ln_f.bias", "final norm"),
        ("lm_head.weight", "output head"),
        ("lm_head.bias", "output head"),
    ],
)
def test_a_tensor_belongs_to_the_part_its_name_says(name: str, part: str) -> None:
    assert part_of(name) == part


def test_groups_hold_every_tensor_once_in_the_order_of_the_model() -> None:
    groups = weight_groups(NAMES)
    assert list(groups) == ["embedding", "layer 0", "layer 10", "final norm", "output head"]
    assert [name for names in groups.values() for name in names] == NAMES
    assert groups["layer 0"] == NAMES[1:3]


def test_no_tensors_are_no_groups() -> None:
    assert weight_groups([]) == {}


def test_probes_are_cut_one_after_the_other_and_around_the_end() -> None:
    text = np.arange(10, dtype=np.int32)
    pieces = _cut(text, [3, 4, 25], offset=5)
    assert [piece.tolist() for piece in pieces[:2]] == [[5, 6, 7], [8, 9, 0, 1]]
    assert pieces[2].tolist() == [(2 + i) % 10 for i in range(25)]
    assert all(piece.dtype == np.int32 for piece in pieces)


def test_the_error_survives_pickling_with_its_part() -> None:
    error = pickle.loads(pickle.dumps(WeightSyncError("layer 3", "log-probs differ")))
    assert (error.part, error.detail) == ("layer 3", "log-probs differ")
    assert str(error) == "weight-sync self-test failed: layer 3: log-probs differ"


def test_the_example_in_the_docstring_runs() -> None:
    results = doctest.testmod(orchestrator.self_test)
    assert results.attempted and not results.failed
