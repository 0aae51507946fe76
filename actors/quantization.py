"""Weights rounded to a narrow format and back: a quantised rollout engine without one, for the control arm."""

import re
from typing import Literal

import torch
from torch import Tensor

QuantizationKind = Literal["int8", "fp8"]
FP8 = torch.float8_e4m3fn
LARGEST = {"int8": 127.0, "fp8": torch.finfo(FP8).max}
NOT_LINEAR = re.compile(r"embed|lm_head|wte|wpe|norm|bias")
MATRIX = 2  # dimensions


def rounded_through(kind: QuantizationKind, name: str, weight: Tensor) -> Tensor:
    """What is left of a weight after `kind`; embeddings, output head and norms stay as they are.

    Symmetric, one scale per output channel (row), as weight-only quantisation of linear layers usually is: the row's
    largest magnitude becomes the format's largest number.

    Args:
        kind: `int8`: 255 equal steps; `fp8`: e4m3, 3 bits of mantissa.
        name: of the tensor in the checkpoint.
        weight: [out, in] of a linear layer, or anything else, which is returned as it is.

    Example:
        >>> rounded_through("int8", "model.layers.0.mlp.up_proj.weight", torch.tensor([[127.0, 0.4]])).tolist()
        [[127.0, 0.0]]
    """
    if weight.ndim != MATRIX or NOT_LINEAR.search(name):
        return weight
    wide = weight.float()
    scale = wide.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / LARGEST[kind]
    scaled = wide / scale
    narrow = scaled.round() if kind == "int8" else scaled.to(FP8).float()
    return (narrow * scale).to(weight.dtype)
