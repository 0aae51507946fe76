"""Embeddings of an engine on a CPU: rows are looked up in them, so they need not be packed for products."""

from typing import Any

import torch
from torch import nn
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)


class OnlyLookedUp(UnquantizedEmbeddingMethod):
    """vLLM packs embeddings as if they were output heads: as much memory again, and time at every update."""

    def process_weights_after_loading(self, layer: Any) -> None:
        """Have a product computed from the weights as they are, should one be asked for after all."""
        layer.cpu_linear = torch.nn.functional.linear


def keep_unpacked(model: nn.Module) -> None:
    """Leave embeddings unpacked from here on, where the model has an output head beside them.

    Args:
        model: vLLM's, with its weights loaded.
    """
    if not any(isinstance(layer, ParallelLMHead) for layer in model.modules()):
        return  # then the embedding is the head
    for layer in model.modules():
        if isinstance(layer, VocabParallelEmbedding) and not isinstance(layer, ParallelLMHead) and _is_plain(layer):
            layer.quant_method = OnlyLookedUp()
            layer.quant_method.process_weights_after_loading(layer)


def _is_plain(layer: Any) -> bool:
    return type(layer.quant_method) is UnquantizedEmbeddingMethod
