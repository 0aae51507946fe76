"""The check that an update brings all parts of a merged layer; the worker itself runs in the end-to-end tests."""

import pickle

import pytest

from actors.rollout_worker import IncompleteUpdate, _check_merged_layers

MERGED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
ATTENTION = [f"model.layers.0.self_attn.{part}.weight" for part in ("q_proj", "k_proj", "v_proj", "o_proj")]
MLP = [f"model.layers.0.mlp.{part}.weight" for part in ("gate_proj", "up_proj", "down_proj")]
OTHERS = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]


@pytest.mark.parametrize("arrived", [[], OTHERS, ATTENTION, MLP, [*reversed(OTHERS + ATTENTION + MLP)]])
def test_all_parts_of_a_merged_layer_or_none_pass(arrived: list[str]) -> None:
    _check_merged_layers(arrived, MERGED)


def test_a_model_that_merges_nothing_takes_any_update() -> None:
    _check_merged_layers(ATTENTION[:1], {})


@pytest.mark.parametrize("left_out", [*ATTENTION[:3], *MLP[:2]])
def test_a_missing_part_is_named_with_its_layer(left_out: str) -> None:
    with pytest.raises(IncompleteUpdate) as raised:
        _check_merged_layers([name for name in OTHERS + ATTENTION + MLP if name != left_out], MERGED)
    assert raised.value.layer == left_out.rpartition(".")[0].rpartition(".")[0]
    assert raised.value.absent == (left_out,)
    assert left_out in str(raised.value)


def test_another_layers_part_does_not_stand_in_for_the_missing_one() -> None:
    second = [name.replace("layers.0", "layers.1") for name in ATTENTION]
    with pytest.raises(
        IncompleteUpdate, match=r"layers\.1\.self_attn: model\.layers\.1\.self_attn\.v_proj\.weight did"
    ):
        _check_merged_layers([*ATTENTION, *second[:2]], MERGED)


def test_biases_are_parts_of_their_own() -> None:
    bias = "model.layers.0.self_attn.q_proj.bias"
    with pytest.raises(IncompleteUpdate) as raised:
        _check_merged_layers([*ATTENTION, bias], MERGED)
    assert raised.value.absent == tuple(bias.replace("q_proj", part) for part in ("k_proj", "v_proj"))


def test_the_error_survives_pickling_between_processes() -> None:
    error = pickle.loads(pickle.dumps(IncompleteUpdate("model.layers.0.mlp", ["a", "b"])))
    assert (error.layer, error.absent) == ("model.layers.0.mlp", ("a", "b"))
    assert str(error) == "model.layers.0.mlp: a, b did not arrive"
