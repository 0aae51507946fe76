"""torch.compile for the decoder layers of a learner's model."""

import os
import shutil
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from torch import nn


class CompilerMissing(ValueError):
    """The learner's machine cannot compile what torch.compile writes."""


def compile_layers(layers: Iterable[nn.Module], device: str) -> None:
    """Have each layer's operations fused when it first runs, once for batches of any shape.

    Args:
        layers: of the decoder, not sharded yet.
        device: of the learner: on a CPU PyTorch writes C++, on a GPU Triton writes its launchers in C.

    Raises:
        CompilerMissing: there is no such compiler, or Python came without the headers that it needs.
    """
    variable, usual = ("CXX", "g++") if device == "cpu" else ("CC", "gcc")
    compiler = os.environ.get(variable, usual)
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if shutil.which(compiler) is None:
        raise CompilerMissing(f"learner.compile: got true, expected false where {compiler} ({variable}) is missing")
    if not headers.exists():
        raise CompilerMissing(f"learner.compile: got true, expected false where {headers} is missing")
    for layer in layers:
        layer.compile(dynamic=True)
