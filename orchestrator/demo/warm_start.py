"""Makes the demo model: a tiny Qwen3 trained with plain supervised steps on the warm-start corpus."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from orchestrator.demo.corpus import CorpusMixture, WarmStartSample, warm_start_sample
from orchestrator.demo.tokenizer import build_tokenizer

MODEL_FOLDER = Path(__file__).parent / "model"
MAX_LENGTH = 512
VOCAB_SIZE = 32  # the 17 tokens, padded to a multiple of 16
BATCH_SIZE = 128
STEPS = 700
PEAK_LR = 3e-3
WARMUP_STEPS = 40
IGNORED = -100  # the label that cross-entropy skips


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Build the untrained model in float32, from torch's current random state.

    The embeddings are tied on purpose: that is the case in which a weight sync can silently leave the output head
    behind, so the demo exercises it. The head dimension is the smallest that vLLM's CPU attention supports.
    """
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def encode_batch(samples: Sequence[WarmStartSample], tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    """Return right-padded token ids `[B, T]` and labels `[B, T]` that cover the response and its end only."""
    prompts = [tokenizer.encode(sample.problem.prompt) for sample in samples]
    responses = [[*tokenizer.encode(sample.response), tokenizer.eos_token_id] for sample in samples]
    width = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True))
    tokens = torch.full((len(samples), width), tokenizer.pad_token_id)
    labels = torch.full((len(samples), width), IGNORED)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        start, end = len(prompt), len(prompt) + len(response)
        tokens[row, :end] = torch.tensor(prompt + response)
        labels[row, start:end] = torch.tensor(response)
    return tokens, labels


def supervised_loss(model: Qwen3ForCausalLM, tokens: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats over the labelled tokens.

    No attention mask is needed: padding stands on the right, where causal attention never looks.
    """
    logits = model(input_ids=tokens).logits[:, :-1]  # [B, T-1, V]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


def lr_at(step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then linear decay to zero."""
    return PEAK_LR * min((step + 1) / WARMUP_STEPS, 1 - step / STEPS)


def train(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> float:
    """Train in place on `STEPS` fresh batches and return the last loss in nats."""
    mixture = CorpusMixture()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.01)
    loss = torch.tensor(float("nan"))
    for step in range(STEPS):
        first = step * BATCH_SIZE
        samples = [warm_start_sample(mixture, seed, index) for index in range(first, first + BATCH_SIZE)]
        loss = supervised_loss(model, *encode_batch(samples, tokenizer))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step)
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step:4d}  loss {loss.item():.4f}", flush=True)
    return loss.item()


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights in bfloat16, configuration and tokenizer: a folder that transformers and vLLM load."""
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True
    )
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the demo model and save it; the same seed gives the same model on the same machine."""
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator.demo.warm_start",
        description="Train the demo model and save it.",
        epilog="example: python -m orchestrator.demo.warm_start --out my-model --seed 1",
    )
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, help="folder to write (default: the shipped one)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the corpus (default: 0)")
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    torch.set_num_threads(2)  # another number of threads sums in another order
    tokenizer = build_tokenizer(MAX_LENGTH)
    model = build_model(tokenizer)
    loss = train(model, tokenizer, options.seed)
    save(model, tokenizer, options.out)
    print(f"saved {options.out} ({model.num_parameters():,} parameters, last loss {loss:.4f})")


if __name__ == "__main__":
    main()
