"""One vLLM engine in its own process: samples responses and loads the weights the learners send."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.config import RolloutConfig
from actors.faults import Faults
from actors.messages import Response, SampleRequest

PARTS = ("weights", "kv_cache")  # of an engine's GPU memory, by vLLM's names


class PrefixCacheKept(RuntimeError):
    """The engine would not drop the KV cache that the old weights had filled."""


class IncompleteUpdate(RuntimeError):
    """A weight update brought only some parts of a layer that the engine holds merged; `layer` names it."""

    def __init__(self, layer: str, absent: Sequence[str]) -> None:
        super().__init__(f"{layer}: {', '.join(absent)} did not arrive")
        self.layer = layer
        self.absent = tuple(absent)

    def __reduce__(self) -> tuple[Any, ...]:
        return IncompleteUpdate, (self.layer, self.absent)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What a rollout worker needs to build its engine.

    Example:
        EngineSpec(model="/models/qwen3", config=rollout, max_model_len=1536, transfer="gloo", index=0, faults=Faults())
    """

    model: str  # folder or hub name
    config: RolloutConfig
    max_model_len: int  # prompt and response tokens
    transfer: str  # vLLM's name of the weight-transfer backend
    index: int  # of this worker among the rollout workers
    faults: Faults


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineShape:
    """Sizes of an engine that is up.

    Example:
        EngineShape(block_size=128, max_model_len=512)
    """

    block_size: int  # tokens per KV-cache block
    max_model_len: int  # prompt and response tokens


class RolloutWorker:
    """Samples with vLLM. The engine runs in this very process: no orphans, quick shutdown.

    Its weight methods are the ones vLLM's weight-sync client calls; the learners' rank 0 drives them.

    On a GPU that it shares with a learner it sleeps when it is told to. It wakes up by itself, and only as far as it
    must: its weights for an update, all of it to sample. So a fresh worker, which is awake, needs no special care.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._vllm: Any = None  # the module actors.engine, once it may be imported
        self._engine: Any = None
        self._merged_parts: dict[str, list[str]] = {}
        self._arrived: list[str] = []
        self._has_joined = False
        self._updating = False
        self._asleep: set[str] = set()  # vLLM's names of the parts whose GPU memory is given back
        self._weight_version = 0

    def start(self) -> EngineShape:
        """Load the model and warm the engine up, unless it is up already."""
        if self._engine is None:
            self._build()
        block_size = self._engine.llm_engine.vllm_config.cache_config.block_size
        return EngineShape(block_size=block_size, max_model_len=self._spec.max_model_len)

    def _build(self) -> None:
        # vLLM takes seconds to import and must see this actor's environment; the driver, which ships this class, never
        # needs it.
        from actors import engine  # noqa: PLC0415

        spec = self._spec
        self._vllm = engine
        self._engine = engine.build_engine(spec.model, spec.config, spec.max_model_len, spec.transfer)
        self._merged_parts = engine.merged_parts(self._engine)
        self.generate([SampleRequest(prompt_ids=np.zeros(4, np.int32), seeds=(0,))], max_tokens=2)

    def generate(self, requests: Sequence[SampleRequest], max_tokens: int | None = None) -> list[tuple[Response, ...]]:
        """Sample one response per seed of each request; responses in the order of the requests and their seeds.

        No KV cache of an earlier call is used: what comes out depends on weights and requests alone, so that a fresh
        worker asked the same gives the same.

        Raises:
            PrefixCacheKept: the prefix cache still holds KV of an earlier call.
        """
        self.wake_up(PARTS)
        self._drop_prefix_cache()
        config = self._spec.config
        limit = max_tokens or config.max_response_tokens
        sampled: list[tuple[Response, ...]] = self._vllm.sample(
            self._engine, requests, config.temperature, limit, self._weight_version
        )
        return sampled

    def sleep(self) -> None:
        """Give the GPU's memory back; the weights wait in host memory.

        That is vLLM's level 1. Level 2 would drop them, and after a step without an update none are sent.
        """
        if len(self._asleep) < len(PARTS):
            self._abandon_update()
            self._engine.sleep(level=1)
            self._asleep = set(PARTS)

    def wake_up(self, parts: Sequence[str]) -> None:
        """Take the GPU memory of these parts again, of those that have none; out of `weights` and `kv_cache`."""
        asleep = [part for part in parts if part in self._asleep]
        if asleep:
            self._engine.wake_up(asleep)
            self._asleep.difference_update(asleep)

    def init_weight_transfer_engine(self, request: Any) -> None:
        """Join the learners' transfer group, and leave the one before it.

        All rollout workers get the same request; each finds its own ranks.
        """
        if self._has_joined:
            self._abandon_update()
            self._leave_transfer()
        info = dict(request.init_info)
        if "rank_offset" in info:  # of the first process of the first engine
            info["rank_offset"] += self._spec.index * self._spec.config.tensor_parallel_size
        self._engine.init_weight_transfer_engine({"init_info": info})
        self._has_joined = True

    def start_weight_update(self) -> None:
        """Open the model for an update; one that was cut off before is given up: this one replaces all that it left."""
        self.wake_up(["weights"])
        self._abandon_update()
        self._arrived = []
        self._engine.start_weight_update()
        self._updating = True

    def update_weights(self, request: Any) -> None:
        """Receive one part of an update, all of which is one part unless CUDA IPC brings it."""
        self._arrived += request.update_info["names"]
        self._engine.update_weights(request)

    def finish_weight_update(self) -> None:
        """Put the update in force, and drop the KV cache of the old weights.

        Raises:
            IncompleteUpdate: parts of a merged layer are missing; the engine would compute with raw memory there.
            PrefixCacheKept: the prefix cache still holds KV of the old weights.
        """
        _check_merged_layers(self._arrived, self._merged_parts)
        self._engine.finish_weight_update()
        self._updating = False
        self._drop_prefix_cache()

    def update_weight_version(self, version: str) -> None:
        """Stamp the responses sampled from here on."""
        self._weight_version = int(version)
        self._engine.update_weight_version(version)

    def take_weight_update(self, request: Any, version: str) -> None:
        """A whole update in one call, where one part is all of it. Errors as in its parts."""
        try:
            self.start_weight_update()
            self.update_weights(request)
        except BaseException:
            with suppress(Exception):  # what went wrong first is what counts
                self._leave_transfer()  # or the sender would wait for this end
            raise
        self.finish_weight_update()
        self.update_weight_version(version)

    def _leave_transfer(self) -> None:
        self._has_joined = False
        self._engine.collective_rpc("shutdown_weight_transfer_engine")

    def _abandon_update(self) -> None:
        if self._updating:
            self._engine.collective_rpc("abandon_weight_update")
            self._updating = False

    def _drop_prefix_cache(self) -> None:
        if not self._spec.faults.keep_prefix_cache and not self._engine.reset_prefix_cache():
            raise PrefixCacheKept("vLLM did not reset its prefix cache; requests are running")


def _check_merged_layers(arrived: Sequence[str], merged: Mapping[str, Sequence[str]]) -> None:
    """Of the parts that vLLM merges into one layer (q, k, v; gate, up) all must have come, or none."""
    names = set(arrived)
    for parts in merged.values():
        for name in arrived:
            for part in (part for part in parts if f".{part}." in name):
                expected = [name.replace(f".{part}.", f".{other}.") for other in parts]
                absent = [other for other in expected if other not in names]
                if absent:
                    raise IncompleteUpdate(name.split(f".{part}.")[0], absent)
