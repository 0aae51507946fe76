"""A stand-in for the rollout worker: made-up responses, in the time that an engine would take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from actors.messages import IntArray, Response, SampleRequest
from actors.rollout_worker import EngineShape
from actors.simulated.config import SimulationConfig
from actors.simulated.hashing import Keys, mixed, uniform
from actors.simulated.pace import Pace
from actors.simulated.sums import Sums
from actors.simulated.weights import Weights, key_of, logprobs

BLOCK_SIZE = 16  # tokens
# What the same key is asked for.
LENGTH, ANGLE, RIGHT, TOKEN, NOISE = (np.uint64(number << 56) for number in range(1, 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedEngineSpec:
    """What a stand-in for a rollout worker needs to know.

    Example:
        SimulatedEngineSpec(config=simulation, model="/models/tiny", index=0, max_model_len=512,
                            max_response_tokens=64)
    """

    config: SimulationConfig
    model: str  # folder, for its tokenizer
    index: int  # of this worker among the rollout workers
    max_model_len: int  # prompt and response tokens
    max_response_tokens: int


class SimulatedRolloutWorker:
    """Has the calls of `RolloutWorker`. What it answers depends on weights, prompts and seeds alone.

    Responses become longer, and more of the sums right, as the weight version grows: see `SimulationConfig`.
    """

    def __init__(self, spec: SimulatedEngineSpec) -> None:
        self._spec = spec
        self._pace = Pace(spec.config, "rollout", spec.index)
        self._sums = Sums.of(spec.model)
        self._weights: Mapping[str, float] = Weights().values
        self._version = 0

    def start(self) -> EngineShape:
        """Come up."""
        with self._pace.taking("start", 0):
            return EngineShape(block_size=BLOCK_SIZE, max_model_len=self._spec.max_model_len)

    def receive(self, weights: Mapping[str, float], version: int) -> None:
        """Sample with these weights from here on; the names that are not among them keep what they had."""
        self._weights = {**self._weights, **weights}
        self._version = version

    def generate(self, requests: Sequence[SampleRequest], max_tokens: int | None = None) -> list[tuple[Response, ...]]:
        """One response per seed of each request; in the order of the requests and their seeds."""
        with self._pace.taking("generate", self._version):
            sampled = iter(self._sample(requests, max_tokens or self._spec.max_response_tokens))
            return [tuple(next(sampled) for _ in request.seeds) for request in requests]

    def sleep(self) -> None:
        """Give its memory to the learners: a stand-in has none."""

    def wake_up(self, parts: Sequence[str]) -> None:
        """Take it back."""

    def _sample(self, requests: Sequence[SampleRequest], limit: int) -> list[Response]:
        asked = [request for request in requests for _ in request.seeds]
        keys = self._keys(requests)
        wanted = self._lengths(keys)
        right = uniform(keys + RIGHT) < self._spec.config.correct.at(self._version)
        tokens = [
            self._tokens(request.prompt_ids, key, length, answered)
            for request, key, length, answered in zip(asked, keys, wanted.tolist(), right.tolist(), strict=True)
        ]
        cut = [one[:limit] for one in tokens]
        scored = self._logprobs(cut, keys)
        return [
            Response(
                token_ids=kept,
                logprobs=values,
                finished=len(whole) <= limit,
                weight_version=self._version,
            )
            for whole, kept, values in zip(tokens, cut, scored, strict=True)
        ]

    def _keys(self, requests: Sequence[SampleRequest]) -> Keys:
        """One for each response; at temperature 0 the seed does not count."""
        of_weights = key_of(self._weights)
        keys = [
            of_weights ^ crc32(request.prompt_ids.tobytes()) ^ (0 if request.temperature == 0 else seed)
            for request in requests
            for seed in request.seeds
        ]
        return mixed(np.array(keys, np.uint64))

    def _lengths(self, keys: Keys) -> NDArray[np.int64]:
        """Log-normal (Box and Muller)."""
        radius = np.sqrt(-2 * np.log1p(-uniform(keys + LENGTH)))
        normal = radius * np.cos(2 * np.pi * uniform(keys + ANGLE))
        median = self._spec.config.response_tokens.at(self._version)
        lengths: NDArray[np.int64] = np.rint(median * np.exp(self._spec.config.spread * normal)).astype(np.int64)
        return np.maximum(1, lengths)

    def _tokens(self, prompt_ids: IntArray, key: np.uint64, length: int, is_right: bool) -> IntArray:
        """Tokens of the prompt in a random order, so that any tokenizer can decode them; the answer at the end."""
        drawn = mixed(np.arange(length, dtype=np.uint64) + key + TOKEN) % np.uint64(len(prompt_ids))
        tokens: IntArray = prompt_ids[drawn.astype(np.intp)]
        ending = (self._sums.answer(prompt_ids.tolist()) or []) if is_right else []
        if self._sums.end is not None:
            ending = [*ending, self._sums.end]
        kept = tokens[: max(0, length - len(ending))]
        return np.concatenate([kept, np.array(ending, np.int32)])

    def _logprobs(self, tokens: Sequence[IntArray], keys: Keys) -> list[NDArray[np.float32]]:
        if not tokens:
            return []
        lengths = [len(one) for one in tokens]
        positions = positions_of(lengths)
        exact = logprobs(self._weights, np.concatenate(tokens), positions)
        rounding = 2 * uniform(np.repeat(keys, lengths) + NOISE + positions.astype(np.uint64)) - 1
        seen = (exact + self._spec.config.mismatch * rounding).astype(np.float32)
        return [np.array(piece) for piece in np.split(seen, np.cumsum(lengths)[:-1])]


def positions_of(lengths: Sequence[int]) -> NDArray[np.int64]:
    """Each token's place in its own response, one response after the other.

    Example:
        >>> positions_of([2, 3]).tolist()
        [0, 1, 0, 1, 2]
    """
    starts = np.cumsum(lengths) - lengths
    return np.arange(sum(lengths)) - np.repeat(starts, lengths)
