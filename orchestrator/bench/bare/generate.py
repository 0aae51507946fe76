"""Responses from vLLM with their log-probs; vLLM alone."""

import json
import sys
import time
from typing import Any

from vllm import LLM, SamplingParams


def main() -> None:
    """The calls of a line of standard input, one after the other; answers with the seconds and the tokens sampled."""
    settings = json.loads(sys.argv[1])
    engine = LLM(
        settings["model"],
        dtype=settings["dtype"],
        max_model_len=settings["max_model_len"],
        max_num_seqs=settings["max_num_seqs"],
        logprobs_mode="processed_logprobs",
        enforce_eager=True,
        enable_chunked_prefill=False,
        disable_log_stats=True,
    )
    print("{}", flush=True)
    for line in sys.stdin:
        tokens = 0
        started = time.perf_counter()
        for call in json.loads(line):
            engine.reset_prefix_cache()
            prompts: list[Any] = [{"prompt_token_ids": ids} for ids in call["prompts"]]
            params = [
                SamplingParams(
                    temperature=settings["temperature"],
                    max_tokens=settings["max_tokens"],
                    seed=seed,
                    logprobs=0,
                    flat_logprobs=True,
                    detokenize=False,
                )
                for seed in call["seeds"]
            ]
            outputs = engine.generate(prompts, params, use_tqdm=False)
            tokens += sum(len(output.outputs[0].token_ids) for output in outputs)
        print(json.dumps({"seconds": time.perf_counter() - started, "tokens": tokens}), flush=True)


if __name__ == "__main__":
    main()
