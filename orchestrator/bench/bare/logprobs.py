"""Log-probs and entropies of chosen tokens with all logits held at once, left to autograd; PyTorch alone."""

import json
import sys
import time

import torch


def main() -> None:
    """Forward and backward once per line of standard input; answers with the seconds."""
    settings = json.loads(sys.argv[1])
    tokens, width, vocabulary = settings["tokens"], settings["width"], settings["vocabulary"]
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width).requires_grad_()
    head = torch.randn(vocabulary, width).mul_(0.02).requires_grad_()
    targets = torch.randint(0, vocabulary, (tokens, 1))
    weights = torch.randn(tokens)
    print("{}", flush=True)
    for _ in sys.stdin:
        hidden.grad = head.grad = None
        started = time.perf_counter()
        log_softmax = torch.log_softmax(hidden @ head.T, dim=-1)
        logprobs = log_softmax.gather(-1, targets).squeeze(-1)
        with torch.no_grad():
            entropy = -(log_softmax.exp() * log_softmax).sum(-1)
        (logprobs * weights).sum().backward()
        took = time.perf_counter() - started
        print(json.dumps({"seconds": took, "entropy": float(entropy.mean())}), flush=True)


if __name__ == "__main__":
    main()
