"""Untrained models of any size with the demo's tokenizer: benchmarks need no trained ones, and no network."""

import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

from orchestrator.model_files import ModelFiles, embedded_model

HEAD_DIM = 64
CONTEXT = 512
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def make_model(folder: Path, *, hidden: int, layers: int, vocabulary: int) -> ModelFiles:
    """Write a Qwen3 with random weights in bfloat16.

    Args:
        folder: to write.
        hidden: width; a multiple of 128.
        layers: decoder layers.
        vocabulary: its size; the tokenizer knows the first few of them.
    """
    embedded = Path(embedded_model())
    for name in TOKENIZER:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(embedded / name, folder / name)
    logging.disable_progress_bar()
    torch.manual_seed(0)
    heads = hidden // HEAD_DIM
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=HEAD_DIM,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config).bfloat16()
    model.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=0, do_sample=True)
    model.save_pretrained(folder)
    return ModelFiles(path=str(folder), context_length=CONTEXT)


def weight_bytes(folder: str) -> int:
    """Of the file of a model that `make_model` has written."""
    return (Path(folder) / "model.safetensors").stat().st_size
