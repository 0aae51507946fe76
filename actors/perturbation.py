"""A strong, repeatable and reversible change of a model's weights, for the weight-sync self-test."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from zlib import crc32

import torch
from torch import Tensor

# Of each tensor's own root mean square: far beyond what one update does, near enough that the model still works.
STRENGTH = 0.5


class Perturbation:
    """What the weights were before, by name. Works on whatever shard of them a rank holds."""

    def __init__(self, originals: dict[str, Tensor]) -> None:
        self._originals = originals

    @classmethod
    def apply(cls, weights: Mapping[str, Tensor], seed: int) -> "Perturbation":
        """Add Gaussian noise to every tensor in place; the same seed and names give the same noise."""
        originals = {name: weight.clone() for name, weight in weights.items()}
        for name, weight in weights.items():
            if weight.numel():
                generator = torch.Generator().manual_seed(seed + crc32(name.encode()))
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float32)
                scale = STRENGTH * weight.float().square().mean().sqrt()
                weight.add_(noise.to(weight.device) * scale)
        return cls(originals)

    def undo(self, weights: Mapping[str, Tensor]) -> None:
        """Put the original weights back, bit for bit."""
        for name, original in self._originals.items():
            weights[name].copy_(original)

    @contextmanager
    def undone(self, weights: Mapping[str, Tensor], names: Iterable[str]) -> Iterator[None]:
        """Put the original weights of `names` back for the length of a with-block; unknown names are left out."""
        perturbed = {name: weights[name].clone() for name in names if name in weights}
        for name in perturbed:
            weights[name].copy_(self._originals[name])
        try:
            yield
        finally:
            for name, weight in perturbed.items():
                weights[name].copy_(weight)
