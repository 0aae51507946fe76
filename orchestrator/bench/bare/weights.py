"""A broadcast of a model's weights over gloo in one piece, and their load into vLLM's model; PyTorch and vLLM alone."""

import json
import os
import sys
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file

SENDER = 0
TIMEOUT = timedelta(minutes=5)


def main() -> None:
    """Once per line of standard input, in both ranks; the receiver answers with the seconds of both parts."""
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    weights = load_file(os.path.join(settings["model"], "model.safetensors"))
    receive = None if settings["rank"] == SENDER else receiver(settings["model"], settings["threads"])
    store = dist.FileStore(settings["store"], 2)
    # beside torch's default group, which vLLM has for itself
    group: Any = dist.ProcessGroupGloo(store, settings["rank"], 2, TIMEOUT)
    options = dist.BroadcastOptions()
    options.rootRank, options.rootTensor = SENDER, 0
    flat = torch.cat([tensor.view(-1) for tensor in weights.values()]).view(torch.uint8)
    print("{}", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        group.broadcast([flat], options).wait()
        sent = time.perf_counter()
        if receive is not None:
            pieces = flat.view(torch.bfloat16).split([tensor.numel() for tensor in weights.values()])
            named = {
                name: piece.view(tensor.shape) for (name, tensor), piece in zip(weights.items(), pieces, strict=True)
            }
            # vLLM computes with a packed copy of a tied head, which would stay the old one
            receive([*named.items(), ("lm_head.weight", named["model.embed_tokens.weight"])])
        ended = time.perf_counter()
        print(json.dumps({"broadcast": sent - started, "load": ended - sent, "seconds": ended - started}), flush=True)


def receiver(model: str, threads: int) -> Any:
    """An engine, and what loads tensors into it with vLLM's own reload."""
    # seconds that the sender need not wait for
    from vllm import LLM  # noqa: PLC0415
    from vllm.config import set_current_vllm_config  # noqa: PLC0415
    from vllm.model_executor.model_loader import reload  # noqa: PLC0415

    engine = LLM(model, dtype="bfloat16", enforce_eager=True, max_model_len=256, max_num_seqs=8, disable_log_stats=True)
    torch.set_num_threads(threads)
    config = engine.llm_engine.vllm_config

    def load(weights: list[tuple[str, torch.Tensor]]) -> None:
        def into(module: Any) -> None:
            reload.initialize_layerwise_reload(module)
            module.load_weights(weights)
            reload.finalize_layerwise_reload(module, config.model_config)

        with set_current_vllm_config(config):
            engine.apply_model(into)

    return load


if __name__ == "__main__":
    main()
