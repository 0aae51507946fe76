"""A policy-gradient update of a model from transformers: forward, backward, clip, AdamW; PyTorch alone otherwise."""

import json
import sys
import time
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM


def main() -> None:
    """One update on the sequences of a line of standard input; answers with the seconds."""
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32, attn_implementation="sdpa")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-12, betas=(0.9, 0.95), weight_decay=0.0)
    print("{}", flush=True)
    for line in sys.stdin:
        sequences = json.loads(line)
        started = time.perf_counter()
        if sequences:
            total = sum(len(sequence["response"]) for sequence in sequences)
            for batch in microbatches(sequences, settings["tokens_per_microbatch"]):
                loss = loss_of(model, batch, settings["temperature"]) / total
                loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


def microbatches(sequences: list[dict[str, list[int]]], limit: int) -> list[list[dict[str, list[int]]]]:
    """Sequences of similar length together, of at most `limit` tokens with padding."""
    packed: list[list[dict[str, list[int]]]] = []
    for sequence in sorted(sequences, key=length, reverse=True):
        if not packed or (len(packed[-1]) + 1) * length(packed[-1][0]) > limit:
            packed.append([])
        packed[-1].append(sequence)
    return packed


def length(sequence: dict[str, list[int]]) -> int:
    """Of prompt and response."""
    return len(sequence["prompt"]) + len(sequence["response"])


def loss_of(model: Any, batch: list[dict[str, list[int]]], temperature: float) -> Tensor:
    """Sum of -advantage * log-prob over the response tokens; padding stands on the right."""
    width = max(map(length, batch))
    tokens = torch.zeros(len(batch), width, dtype=torch.long)
    mask = torch.zeros(len(batch), width)
    for row, sequence in enumerate(batch):
        end, start = length(sequence), len(sequence["prompt"])
        tokens[row, :end] = torch.tensor(sequence["prompt"] + sequence["response"])
        mask[row, start:end] = 0.5  # an advantage
    chosen = mask[:, 1:] != 0  # the head is needed for the responses only
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1][chosen]
    logprobs = torch.log_softmax(model.lm_head(hidden) / temperature, -1)
    with torch.no_grad():
        _entropy = -(logprobs.exp() * logprobs).sum(-1)
    return -(logprobs.gather(-1, tokens[:, 1:][chosen][:, None]).squeeze(-1) * mask[:, 1:][chosen]).sum()


if __name__ == "__main__":
    main()
