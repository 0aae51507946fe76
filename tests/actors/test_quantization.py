"""What rounding through a narrow format leaves of a weight, and which weights it leaves alone."""

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import actors.quantization
from actors.quantization import QuantizationKind, rounded_through

KINDS: tuple[QuantizationKind, ...] = ("int8", "fp8")
LINEAR = "model.layers.0.self_attn.q_proj.weight"
seeds = st.integers(0, 2**16)


def weight(seed: int, rows: int = 8, columns: int = 700) -> torch.Tensor:
    """[rows, columns], rows of very different size."""
    generator = torch.Generator().manual_seed(seed)
    scales = 10.0 ** torch.linspace(-6, 4, rows)[:, None]
    return torch.randn(rows, columns, generator=generator) * scales


def test_the_example_in_the_docstring_is_true() -> None:
    assert doctest.testmod(actors.quantization).failed == 0


@given(seeds)
@settings(max_examples=20)
def test_int8_has_at_most_255_levels_a_row_and_errs_by_half_a_step_at_most(seed: int) -> None:
    exact = weight(seed)
    rounded = rounded_through("int8", LINEAR, exact)
    step = exact.abs().amax(dim=-1, keepdim=True) / 127
    levels = rounded / step
    torch.testing.assert_close(levels, levels.round(), rtol=1e-5, atol=1e-5)
    assert float(levels.abs().max()) <= 127 * (1 + 1e-6)
    assert all(1 < len(row.unique()) <= 255 for row in rounded)
    assert float(((rounded - exact).abs() / step).max()) <= 0.5 * (1 + 1e-4)
    assert not torch.equal(rounded, exact)


def test_int8_rounds_each_row_by_a_step_of_its_own() -> None:
    rounded = rounded_through("int8", LINEAR, torch.tensor([[127.0, 0.4, -3.6], [1.27, 0.0149, -0.0151]]))
    torch.testing.assert_close(rounded, torch.tensor([[127.0, 0.0, -4.0], [1.27, 0.01, -0.02]]))


@given(seeds)
@settings(max_examples=20)
def test_fp8_leaves_numbers_of_that_format_times_one_scale_a_row_and_errs_by_a_sixteenth(seed: int) -> None:
    exact = weight(seed)
    scale = exact.abs().amax(dim=-1, keepdim=True) / 448
    rounded = rounded_through("fp8", LINEAR, exact)
    scaled = rounded / scale
    torch.testing.assert_close(scaled, scaled.to(torch.float8_e4m3fn).float(), rtol=1e-6, atol=0)
    # Half the gap between neighbours: 2^-4 of a number; below 2^-6 the format has equal gaps of 2^-9.
    allowed = torch.maximum((exact / scale).abs() * 2.0**-4, torch.tensor(2.0**-10))
    assert bool(((rounded - exact).abs() / scale <= allowed * (1 + 1e-4)).all())
    assert not torch.equal(rounded, exact)


def test_fp8_keeps_its_own_numbers_exactly() -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    numbers = codes[codes.isfinite()]
    assert len(numbers) == 254
    assert torch.equal(rounded_through("fp8", LINEAR, numbers[None]), numbers[None])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_twice_is_rounding_once_and_keeps_the_dtype(kind: QuantizationKind, dtype: torch.dtype) -> None:
    once = rounded_through(kind, LINEAR, weight(3).to(dtype))
    assert once.dtype == dtype
    assert torch.equal(rounded_through(kind, LINEAR, once), once)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_itself_is_left_as_it_was(kind: QuantizationKind) -> None:
    exact = weight(5)
    before = exact.clone()
    rounded_through(kind, LINEAR, exact)
    assert torch.equal(exact, before)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_zeros_stay_zeros(kind: QuantizationKind) -> None:
    rounded = rounded_through(kind, LINEAR, torch.tensor([[0.0, 0.0], [0.0, -2.0]]))
    assert rounded.tolist() == [[0.0, 0.0], [0.0, -2.0]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.embed_tokens.weight", (4, 9)),
        ("lm_head.weight", (4, 9)),
        ("transformer.wte.weight", (4, 9)),
        ("model.layers.0.some_norm.weight", (4, 9)),
        ("model.layers.0.input_layernorm.weight", (9,)),
        ("model.layers.0.self_attn.q_proj.bias", (9,)),
        ("model.layers.0.mlp.experts.up_proj", (2, 4, 9)),
    ],
)
def test_embeddings_head_norms_and_all_that_is_no_matrix_stay_as_they_are(
    kind: QuantizationKind, name: str, shape: tuple[int, ...]
) -> None:
    exact = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(rounded_through(kind, name, exact), exact)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"])
def test_every_linear_layer_of_a_decoder_is_rounded(kind: QuantizationKind, name: str) -> None:
    exact = weight(7)
    assert not torch.equal(rounded_through(kind, f"model.layers.3.{name}.weight", exact), exact)
