"""What saves a learner memory, on a real FSDP2 rank over gloo: precision, checkpointing, offloading, attention."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from learner_ranks import batch, order, save, shard_of, state_of, train, weights_of
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from actors import policy_model
from actors.attention import AttentionUnavailable, implementation
from actors.compilation import CompilerMissing, compile_layers
from actors.config import LearnerConfig, OffloadConfig
from actors.learner import Learner
from actors.offload import OffloadedMoments
from actors.policy_model import PolicyModel

SHARD = shard_of(batch()[:4], batch()[4:])


def layers(learner: Learner) -> list[nn.Module]:
    return list(learner._model.model.get_decoder().layers)


def gradients(learner: Learner) -> dict[str, Tensor]:
    learner.compute_gradients(SHARD)
    return {name: parameter.grad.full_tensor().clone() for name, parameter in learner._model.named_parameters()}


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(autouse=True)
def _a_unit_for_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a model of usual size; the demo's layers are too small for that."""
    monkeypatch.setattr(policy_model, "SMALLEST_UNIT", 0)


@pytest.mark.slow
def test_layers_with_few_weights_share_a_unit_and_have_the_same_gradient(
    build: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = gradients(build())
    monkeypatch.undo()
    learner = build()
    assert [isinstance(layer, FSDPModule) for layer in layers(learner)] == [False, False]
    assert largest_difference(apart, gradients(learner)) == 0


@pytest.mark.slow
def test_in_bfloat16_only_the_passes_are_narrow(build: Callable[..., Learner]) -> None:
    learner = build(dtype="bfloat16")
    computed, reduced = set(), set()

    def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        computed.update((inputs[0].dtype, module.weight.dtype))

    for layer in layers(learner):
        layer.mlp.up_proj.register_forward_pre_hook(see)
        assert isinstance(layer, FSDPModule)
        layer.set_all_reduce_hook(lambda output: reduced.add(output.dtype))
    found = gradients(learner)
    assert computed == {torch.bfloat16}
    assert reduced == {torch.float32}
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    learner.apply(order(lr=1e-3))
    state = state_of(learner)
    assert {tensor.dtype for name, tensor in state.items() if not name.startswith("random/")} == {torch.float32}


@pytest.mark.slow
def test_micro_batches_are_added_up_in_float32(build: Callable[..., Learner]) -> None:
    found = gradients(build(dtype="bfloat16"))
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in found.values())


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.0)])
def test_checkpointed_activations_are_computed_twice_and_give_the_same_gradient(
    build: Callable[..., Learner], dtype: str, tolerance: float
) -> None:
    found, calls = [], []
    for checkpointing in (False, True):
        learner = build(dtype=dtype, activation_checkpointing=checkpointing)
        seen: list[int] = []
        layers(learner)[0].mlp.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        found.append(gradients(learner))
        calls.append(len(seen))
    assert calls == [2, 4], "once for each micro-batch, and once more in backward"
    assert largest_difference(*found) <= tolerance


def test_a_model_that_cannot_checkpoint_its_activations_is_refused() -> None:
    model: Any = SimpleNamespace(model=SimpleNamespace(supports_gradient_checkpointing=False))
    with pytest.raises(ValueError, match="activation checkpointing is not supported"):
        PolicyModel.checkpoint_activations(model)


@pytest.mark.slow
@pytest.mark.parametrize("offload", [OffloadConfig(parameters=True), OffloadConfig(optimizer=True)])
def test_offloading_changes_no_number_and_what_is_saved_is_read_back(
    build: Callable[..., Learner], offload: OffloadConfig, tmp_path: Path
) -> None:
    plain = build()
    expected = train(plain, SHARD, steps=2)
    weights = weights_of(plain)
    learner = build(offload=offload)
    assert train(learner, SHARD, steps=1) == expected[:1]
    assert isinstance(save(learner, tmp_path / "learner"), tuple)
    assert train(learner, SHARD, steps=1) == expected[1:]
    assert largest_difference(weights_of(learner), weights) == 0
    again = build(offload=offload)
    again.load(str(tmp_path / "learner"))
    assert train(again, SHARD, steps=1) == expected[1:]
    assert largest_difference(weights_of(again), weights) == 0


class Moment:
    """A tensor of an optimiser, which remembers where it was brought."""

    def __init__(self) -> None:
        self.journey: list[str] = []

    def to(self, device: torch.device, non_blocking: bool) -> "Moment":
        self.journey.append(device.type)
        return self


def test_moments_are_on_the_device_for_the_time_of_an_update_also_of_one_that_fails() -> None:
    state = {"step": Moment(), "exp_avg": Moment(), "exp_avg_sq": Moment()}
    optimizer: Any = SimpleNamespace(state={"weight": state})
    moments = OffloadedMoments(optimizer, torch.device("meta"))
    with moments.fetched():
        assert state["exp_avg"].journey == ["meta"]
    with pytest.raises(ZeroDivisionError), moments.fetched():
        _ = 1 / 0
    assert state["exp_avg"].journey == state["exp_avg_sq"].journey == ["meta", "cpu"] * 2
    assert state["step"].journey == []


@pytest.mark.parametrize(
    ("wanted", "installed", "device", "dtype", "expected"),
    [
        ("auto", True, "cuda", torch.bfloat16, "flash_attention_2"),
        ("auto", True, "cuda", torch.float16, "flash_attention_2"),
        ("auto", True, "cuda", torch.float32, "sdpa"),
        ("auto", True, "cpu", torch.bfloat16, "sdpa"),
        ("auto", False, "cuda", torch.bfloat16, "sdpa"),
        ("eager", True, "cuda", torch.bfloat16, "eager"),
        ("sdpa", True, "cuda", torch.bfloat16, "sdpa"),
        ("flash_attention_2", True, "cuda", torch.bfloat16, "flash_attention_2"),
    ],
)
def test_auto_takes_flash_attention_where_it_can_be_had(  # noqa: PLR0917 - of a table
    wanted: Any, installed: bool, device: str, dtype: torch.dtype, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.attention.find_spec", lambda name: object() if installed else None)
    assert implementation(wanted, device, dtype) == expected


def test_attention_that_is_named_and_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.attention.find_spec", lambda name: None)
    with pytest.raises(AttentionUnavailable, match="expected sdpa or eager where the package flash-attn is missing"):
        implementation("flash_attention_2", "cuda", torch.bfloat16)


@pytest.mark.parametrize("changes", [{}, {"gpus_per_worker": 1.0}, {"dtype": "bfloat16"}])
def test_flash_attention_that_could_not_run_anywhere_is_refused_in_the_file(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="attention another one: that needs a GPU, and bfloat16 or float16 as dtype"):
        LearnerConfig.model_validate({"attention": "flash_attention_2", **changes})
    both = {"gpus_per_worker": 1.0, "dtype": "bfloat16"}
    assert LearnerConfig.model_validate({"attention": "flash_attention_2", **both}).device == "cuda"


@pytest.mark.slow
def test_eager_attention_gives_the_scores_of_sdpa(build: Callable[..., Learner]) -> None:
    expected = build().score(batch())
    scores = build(attention="eager").score(batch())
    assert max(float(abs(a - b).max()) for a, b in zip(scores, expected, strict=True)) < 1e-4


@pytest.mark.parametrize(("device", "variable"), [("cpu", "CXX"), ("cuda", "CC")])
def test_compiling_without_a_compiler_is_refused_in_one_line(
    device: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "no-such-compiler")
    with pytest.raises(CompilerMissing, match=r"compile: got true, expected false where no-such-compiler \(C"):
        compile_layers([], device)


def test_compiling_without_pythons_headers_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(CompilerMissing, match=r"expected false where .*/Python\.h is missing"):
        compile_layers([], "cpu")


@pytest.mark.long
def test_compiled_layers_give_the_same_gradient_but_for_rounding(build: Callable[..., Learner]) -> None:
    plain = gradients(build())
    compiled = gradients(build(compile=True))
    scale = max(float(tensor.abs().max()) for tensor in plain.values())
    assert 0 < largest_difference(plain, compiled) < 1e-5 * scale, "0 would be the plain layers again"
