"""The weights of a simulated model: one number for each of a few tensors, and the log-probs that follow from them."""

import json
import math
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from actors.simulated.hashing import uniform

NAMES = (
    "model.embed_tokens.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.1.mlp.up_proj.weight",
    "model.norm.weight",
    "lm_head.weight",
)
FLOOR = 0.1  # a token's log-prob is at most minus this
LARGEST_MOVE = 0.1  # of a weight in one update
MOVE_PER_LR = 100.0
MOMENTUM = 0.9


class Weights:
    """They drift with the learning rate and with what was learned from, so that a lost update changes all numbers.

    weights = Weights()
    weights.move(lr=1e-4, push=0.3)
    logprobs = weights.logprobs(token_ids, positions)
    """

    def __init__(self) -> None:
        self.values = dict.fromkeys(NAMES, 0.0)
        self._moments = dict.fromkeys(NAMES, 0.0)

    def move(self, lr: float, push: float) -> tuple[float, float]:
        """One update; returns the squared norms of the weights before and of what was added to them."""
        before = sum(value * value for value in self.values.values())
        added = 0.0
        for place, name in enumerate(NAMES):
            self._moments[name] = MOMENTUM * self._moments[name] + math.sin(place + push)
            change = LARGEST_MOVE * math.tanh(lr * MOVE_PER_LR * self._moments[name])
            self.values[name] += change
            added += change * change
        return before, added

    def perturbed(self, seed: int) -> dict[str, float]:
        """Other values for all tensors, far from these."""
        noise = uniform(np.array([seed + crc32(name.encode()) for name in NAMES], np.uint64)).tolist()
        return {name: self.values[name] + 0.5 + more for name, more in zip(NAMES, noise, strict=True)}

    def to_json(self) -> str:
        """All of it."""
        return json.dumps({"values": self.values, "moments": self._moments})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Those that `to_json` wrote, bit for bit."""
        found: dict[str, Any] = json.loads(text)
        weights = cls()
        weights.values, weights._moments = found["values"], found["moments"]
        return weights


def logprobs(values: Mapping[str, float], token_ids: NDArray[Any], positions: NDArray[Any]) -> NDArray[np.float64]:
    """[T] log-probs of tokens at their places in a response: every tensor has a hand in each of them."""
    keys = token_ids.astype(np.uint64) * np.uint64(0x1_0000_0001) + positions.astype(np.uint64) * np.uint64(7919)
    total = np.full(keys.shape, -FLOOR)
    for place, name in enumerate(NAMES):
        reach = 1 + math.tanh(values[name])
        total -= reach / len(NAMES) * uniform(keys + np.uint64((place + 1) << 52))
    return total


def key_of(values: Mapping[str, float], names: Iterable[str] = NAMES) -> int:
    """An integer that belongs to these weights and, as a hash, to no others."""
    text = repr([values[name] for name in names])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
