"""Which implementation of attention a learner's model gets."""

from importlib.util import find_spec
from typing import Literal

import torch

from actors.config import Attention

Implementation = Literal["sdpa", "flash_attention_2", "eager"]  # by their names in transformers


class AttentionUnavailable(ValueError):
    """The attention that was asked for is not installed where the learner runs."""


def implementation(wanted: Attention, device: str, dtype: torch.dtype) -> Implementation:
    """What `learner.attention` comes to on this machine.

    Args:
        wanted: as in the experiment file.
        device: of the learner, `cpu` or `cuda`.
        dtype: of the forward pass.

    Raises:
        AttentionUnavailable: flash attention was asked for by name, and its package is not there.

    Example:
        >>> implementation("auto", "cpu", torch.float32)
        'sdpa'
    """
    is_there = find_spec("flash_attn") is not None
    if wanted == "flash_attention_2" and not is_there:
        raise AttentionUnavailable(
            "learner.attention: got 'flash_attention_2', expected sdpa or eager where the package flash-attn is missing"
        )
    if wanted != "auto":
        return wanted
    return "flash_attention_2" if is_there and device == "cuda" and dtype.itemsize == torch.half.itemsize else "sdpa"
