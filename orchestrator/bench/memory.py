"""Log-probs over a large vocabulary: the memory they take beside what must exist, and their time."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from orchestrator.bench.bare_process import bare_process
from orchestrator.bench.pairs import all_interleaved
from orchestrator.bench.result import Figure, Result

MIB = 2**20
WIDTH, VOCABULARY = 1024, 152_064
CHUNK_MIB = 256
LARGEST_PEAK, LARGEST_TIME = 1.5, 1.15
LARGEST_GROWTH = 1.05  # of the peak, from a quarter of the tokens on: none but what is measured inexactly
SCORER = ("-m", "orchestrator.bench.scorer")
KINDS = {
    "time in chunks / all logits at once": {"corrected": False, "foreseen": True},
    "the same with a correction of tokens": {"corrected": True, "foreseen": True},
    "the same with a correction of sequences": {"corrected": True, "foreseen": False},
}


def measure(tokens: int, timed_tokens: int, pairs: int) -> Result:
    """Measure peaks in processes of their own, then time both sides.

    Args:
        tokens: of the larger peak; the smaller one is of a quarter of them.
        timed_tokens: so many that all their logits fit: two or three pieces of [tokens, vocabulary] float32.
        pairs: measurements of both sides.
    """
    settings = {"width": WIDTH, "vocabulary": VOCABULARY, "threads": len(os.sched_getaffinity(0))}
    smaller, larger = (_first_pass({**settings, "tokens": num}) for num in (tokens // 4, tokens))
    with ExitStack() as stack:
        of_both = {**settings, "tokens": timed_tokens}
        bare = stack.enter_context(bare_process("logprobs", of_both))
        kinds = [
            stack.enter_context(bare_process(SCORER, {**of_both, **kind, "chunk_mib": CHUNK_MIB}))
            for kind in KINDS.values()
        ]
        timed = all_interleaved([process.seconds for process in kinds], bare.seconds, pairs)
    return Result(
        benchmark="memory",
        settings={**settings, "tokens": tokens, "timed_tokens": timed_tokens, "chunk_mib": CHUNK_MIB},
        figures=(
            Figure(
                name=f"peak beside the gradients, {tokens:,} tokens / a chunk of logits",
                value=larger["peak_bytes"] / (CHUNK_MIB * MIB),
                target=LARGEST_PEAK,
            ),
            Figure(
                name=f"that peak / the one of {tokens // 4:,} tokens",
                value=larger["peak_bytes"] / smaller["peak_bytes"],
                target=LARGEST_GROWTH,
            ),
            Figure(name=f"time of {tokens:,} tokens, in chunks", value=larger["seconds"], unit="s"),
            *(
                Figure.ratio(name, measured, LARGEST_TIME if KINDS[name]["foreseen"] else None)
                for name, measured in zip(KINDS, timed, strict=True)
            ),
        ),
    )


def _first_pass(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What one forward and backward pass comes to in a fresh process, whose libraries few tokens have warmed up."""
    kind = next(iter(KINDS.values()))
    with bare_process(SCORER, {**settings, **kind, "chunk_mib": CHUNK_MIB}) as process:
        return process.once()
