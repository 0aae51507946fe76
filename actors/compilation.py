"""torch.compile for the decoder layers of a learner's model."""

import os
import shutil
from collections.abc import Iterable

from torch import nn


class CompilerMissing(ValueError):
    """The learner's machine has no compiler for what torch.compile writes."""


def compile_layers(layers: Iterable[nn.Module], device: str) -> None:
    """Have each layer's operations fused when it first runs, once for batches of any shape.

    Args:
        layers: of the decoder, not sharded yet.
        device: of the learner, `cpu` or `cuda`; on a GPU PyTorch brings all that is needed.

    Raises:
        CompilerMissing: there is no C++ compiler on a machine that needs one.
    """
    compiler = os.environ.get("CXX", "g++")
    if device == "cpu" and shutil.which(compiler) is None:
        raise CompilerMissing(
            f"learner.compile: got true, expected false where there is no C++ compiler ({compiler}; CXX names another)"
        )
    for layer in layers:
        layer.compile(dynamic=True)
