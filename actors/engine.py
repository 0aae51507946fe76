"""vLLM as the rollout workers use it: token ids in, token ids and log-probs out, weights replaced in place."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from vllm import LLM, SamplingParams
from vllm.config import WeightTransferConfig

from actors.config import RolloutConfig
from actors.embeddings import keep_unpacked
from actors.messages import Response, SampleRequest


def build_engine(model: str, config: RolloutConfig, max_model_len: int, transfer: str) -> LLM:
    """An engine in this very process; one that is split over GPUs has further processes, which end with this one.

    With `ipc` as transfer it shares its GPU with a learner, and can sleep.

    Args:
        model: folder or hub name.
        config: how it samples, and on what.
        max_model_len: prompt and response tokens.
        transfer: vLLM's name of the weight-transfer backend.
    """
    on_device: dict[str, Any]
    if config.device == "cuda":
        on_device = {
            "gpu_memory_utilization": config.gpu_memory_utilization,
            "enable_sleep_mode": transfer == "ipc",
        }
    else:
        # When a prompt with a seed of its own is read in pieces, vLLM sets a random generator back, which those of CPUs
        # cannot do.
        on_device = {"enforce_eager": True, "enable_chunked_prefill": False}
    if config.tensor_parallel_size > 1:
        # Inside of a placement group vLLM would by itself ask Ray for further actors, with GPUs that this one has.
        on_device |= {
            "tensor_parallel_size": config.tensor_parallel_size,
            "distributed_executor_backend": "mp",
        }
    engine = LLM(
        model,
        dtype=config.dtype,
        max_model_len=max_model_len,
        max_num_seqs=config.max_concurrent,
        logprobs_mode="processed_logprobs",  # after temperature: the distribution that was sampled from
        weight_transfer_config=WeightTransferConfig(backend=transfer),
        worker_extension_cls="actors.engine_process.EngineProcess",
        disable_log_stats=True,
        **on_device,
    )
    if config.device == "cpu":
        engine.apply_model(keep_unpacked)
    return engine


def sample(
    engine: LLM, requests: Sequence[SampleRequest], temperature: float, max_tokens: int, weight_version: int
) -> list[tuple[Response, ...]]:
    """One response per seed of each request; responses in the order of the requests and their seeds.

    `temperature` is that of the requests that do not say one of their own.
    """
    prompts: list[Any] = []
    params: list[SamplingParams] = []
    for request in requests:
        tokens = {"prompt_token_ids": request.prompt_ids.tolist()}
        prompts += [tokens] * len(request.seeds)
        params += [_sampling(seed, request, temperature, max_tokens) for seed in request.seeds]
    outputs = iter(engine.generate(prompts, params, use_tqdm=False) if prompts else ())
    return [tuple(_response(next(outputs), weight_version) for _ in request.seeds) for request in requests]


def _sampling(seed: int, request: SampleRequest, temperature: float, max_tokens: int) -> SamplingParams:
    return SamplingParams(
        temperature=temperature if request.temperature is None else request.temperature,
        max_tokens=max_tokens,
        seed=seed,
        logprobs=0,  # of the sampled token only
        flat_logprobs=True,
        detokenize=False,
    )


def _response(output: Any, weight_version: int) -> Response:
    completion = output.outputs[0]
    return Response(
        token_ids=np.asarray(completion.token_ids, np.int32),
        logprobs=np.asarray(completion.logprobs.logprobs, np.float32),
        finished=completion.finish_reason == "stop",
        weight_version=weight_version,
    )


def merged_parts(engine: LLM) -> dict[str, list[str]]:
    """Which of a checkpoint's layers the engine holds as one, by the merged name: qkv_proj of q, k and v, say."""
    return engine.apply_model(_packed_modules)[0]


def _packed_modules(model: Any) -> dict[str, list[str]]:
    return dict(getattr(model, "packed_modules_mapping", {}))
