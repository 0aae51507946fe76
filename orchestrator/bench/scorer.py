"""The learners' log-probs as a process of its own, that answers as the bare programs do."""

import json
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from actors.token_scores import Foresight, score_tokens

MIB = 2**20
WARM_UP_TOKENS = 8
KIB = 1024
LARGEST_WEIGHT = 2.0  # of a token's correction


def main() -> None:
    """Forward and backward once per line of standard input; answers with the seconds and the peak of memory.

    The peak is what the process had in RAM at most, without what it had before and without the gradients of hidden
    states and output head.
    """
    settings = json.loads(sys.argv[1])
    tokens, width, vocabulary = settings["tokens"], settings["width"], settings["vocabulary"]
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width).requires_grad_()
    head = torch.randn(vocabulary, width).mul_(0.02).requires_grad_()
    targets = torch.randint(0, vocabulary, (tokens,))
    weights = torch.randn(tokens)
    sampled = torch.randn(tokens).mul_(0.1).sub_(math.log(vocabulary))  # log-probs of another engine
    chunk_tokens = settings["chunk_mib"] * MIB // (4 * vocabulary)

    def once(num: int) -> Tensor:
        hidden.grad = head.grad = None
        scores = score_tokens(hidden[:num], head, targets[:num], 1.0, chunk_tokens, foresight)
        (scores.logprobs * gradient(scores.logprobs.detach(), slice(0, num))).sum().backward()
        return scores.entropy.mean()

    def gradient(logprobs: Tensor, place: slice) -> Tensor:
        if not settings["corrected"]:
            return weights[place]
        return weights[place] * (logprobs - sampled[place]).exp_().clamp_(max=LARGEST_WEIGHT)

    foresight: Foresight | None = gradient if settings["foreseen"] else None

    once(WARM_UP_TOKENS)
    hidden.grad = head.grad = None
    print("{}", flush=True)
    for _ in sys.stdin:
        hidden.grad = head.grad = None
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        started = time.perf_counter()
        entropy = once(tokens)
        took = time.perf_counter() - started
        peak = _resident("VmHWM") - before - 4 * (hidden.numel() + head.numel())
        print(json.dumps({"seconds": took, "peak_bytes": peak, "entropy": float(entropy)}), flush=True)


def _resident(field: str) -> int:
    """Bytes of this process in RAM, now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
