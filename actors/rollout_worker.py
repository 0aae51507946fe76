"""One vLLM engine in its own process: samples responses and loads the weights the learners send."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.config import RolloutConfig
from actors.faults import Faults
from actors.messages import Response, SampleRequest


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


class RolloutWorker:
    """Samples with vLLM. The engine runs in this very process: no orphans, quick shutdown.

    Its weight methods are the ones vLLM's weight-sync client calls; the learners' rank 0 drives them.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._engine: Any = None
        self._arrived: list[str] = []
        self._weight_version = 0

    def start(self) -> int:
        """Load the model and warm the engine up; returns the size of a KV-cache block in tokens."""
        # vLLM takes seconds to import and must see the environment of this actor; the driver, which ships this class,
        # never needs it.
        from vllm import LLM
        from vllm.config import WeightTransferConfig

        spec, config = self._spec, self._spec.config
        on_gpu = {"gpu_memory_utilization": config.gpu_memory_utilization} if config.device == "cuda" else {}
        self._engine = LLM(
            spec.model,
            dtype=config.dtype,
            enforce_eager=config.device == "cpu",
            max_model_len=spec.max_model_len,
            max_num_seqs=config.max_concurrent,
            logprobs_mode="processed_logprobs",
            weight_transfer_config=WeightTransferConfig(backend=spec.transfer),
            worker_extension_cls="actors.weight_transfer.WeightTransferExtension",
            disable_log_stats=True,
            **on_gpu,
        )
        self.generate([SampleRequest(prompt_ids=np.zeros(4, np.int32), seeds=(0,))], max_tokens=2)
        block_size: int = self._engine.llm_engine.vllm_config.cache_config.block_size
        return block_size

    def generate(
        self, requests: Sequence[SampleRequest], max_tokens: int | None = None
    ) -> list[tuple[Response, ...]]:
        """Sample one response per seed of each request; responses in the order of the requests and their seeds."""
        prompts, params = [], []
        for request in requests:
            tokens = {"prompt_token_ids": request.prompt_ids.tolist()}
            for seed in request.seeds:
                prompts.append(tokens)
                params.append(self._sampling(seed, max_tokens or self._spec.config.max_response_tokens))
        outputs = iter(self._engine.generate(prompts, params, use_tqdm=False)) if prompts else iter(())
        return [tuple(self._response(next(outputs)) for _ in request.seeds) for request in requests]

    def _sampling(self, seed: int, max_tokens: int) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=self._spec.config.temperature,
            max_tokens=max_tokens,
            seed=seed,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
        )

    def _response(self, output: Any) -> Response:
        completion = output.outputs[0]
        return Response(
            token_ids=np.asarray(completion.token_ids, np.int32),
            logprobs=np.asarray(completion.logprobs.logprobs, np.float32),
            finished=completion.finish_reason == "stop",
            weight_version=self._weight_version,
        )

    def init_weight_transfer_engine(self, request: Any) -> None:
        """Join the learners' transfer group. Every rollout worker gets the same request and finds its own rank in it."""
        info = dict(request.init_info)
        if "rank_offset" in info:
            info["rank_offset"] += self._spec.index
        self._engine.init_weight_transfer_engine({"init_info": info})

    def start_weight_update(self) -> None:
        """Open the model for an update."""
        self._arrived = []
        self._engine.start_weight_update()

    def update_weights(self, request: Any) -> None:
        """Receive one part of an update."""
        self._arrived += request.update_info["names"]
        self._engine.update_weights(request)

    def finish_weight_update(self) -> None:
        """Put the update in force, and drop the KV cache of the old weights.

        Raises:
            IncompleteUpdate: parts of a merged layer are missing; the engine would compute with raw memory there.
            PrefixCacheKept: the prefix cache still holds KV of the old weights.
        """
        _check_merged_layers(self._arrived, self._merged_parts())
        self._engine.finish_weight_update()
        if not self._spec.faults.keep_prefix_cache and not self._engine.reset_prefix_cache():
            raise PrefixCacheKept("vLLM did not reset its prefix cache after a weight update; requests are running")

    def update_weight_version(self, version: str) -> None:
        """Stamp the responses sampled from here on."""
        self._weight_version = int(version)
        self._engine.update_weight_version(version)

    def close(self) -> None:
        """Free the engine and what it holds on a GPU."""
        self._engine = None
        gc.collect()

    def _merged_parts(self) -> dict[str, list[str]]:
        found: list[dict[str, list[str]]] = self._engine.apply_model(_packed_modules)
        return found[0]


def _packed_modules(model: Any) -> dict[str, list[str]]:
    return dict(getattr(model, "packed_modules_mapping", {}))


def _check_merged_layers(arrived: Sequence[str], merged: dict[str, list[str]]) -> None:
    """Of the parts that vLLM merges into one layer (q, k, v; gate, up) all must have come, or none."""
    names = set(arrived)
    for parts in merged.values():
        for name in arrived:
            for part in parts:
                if f".{part}." in name:
                    expected = [name.replace(f".{part}.", f".{other}.") for other in parts]
                    absent = [other for other in expected if other not in names]
                    if absent:
                        raise IncompleteUpdate(name.split(f".{part}.")[0], absent)
