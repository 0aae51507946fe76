"""Which of an engine's layers stay unpacked; that engines with such layers take weights is in the end-to-end tests."""

import torch
from torch import nn
from torch.nn.functional import linear
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)

from actors.embeddings import OnlyLookedUp, keep_unpacked


def layer(kind: type[VocabParallelEmbedding]) -> VocabParallelEmbedding:
    """One as vLLM leaves it after a load, without the process group that its constructor wants."""
    made = kind.__new__(kind)
    nn.Module.__init__(made)
    made.quant_method = UnquantizedEmbeddingMethod()
    made.weight = nn.Parameter(torch.arange(6.0).view(3, 2), requires_grad=False)
    made.cpu_linear = "packed"
    return made


def test_an_embedding_beside_a_head_is_not_packed_now_nor_at_the_next_load() -> None:
    embedding, head = layer(VocabParallelEmbedding), layer(ParallelLMHead)
    keep_unpacked(nn.ModuleDict({"embedding": embedding, "head": head}))
    assert embedding.cpu_linear is linear
    assert type(head.quant_method) is UnquantizedEmbeddingMethod
    assert head.cpu_linear == "packed"
    embedding.cpu_linear = "old"
    embedding.quant_method.process_weights_after_loading(embedding)
    assert embedding.cpu_linear is linear


def test_an_embedding_that_is_the_head_stays_packed() -> None:
    embedding = layer(VocabParallelEmbedding)
    keep_unpacked(nn.ModuleDict({"embedding": embedding}))
    assert type(embedding.quant_method) is UnquantizedEmbeddingMethod
    assert embedding.cpu_linear == "packed"


def test_an_embedding_that_is_quantised_is_left_alone() -> None:
    class Quantised(UnquantizedEmbeddingMethod):
        pass

    embedding = layer(VocabParallelEmbedding)
    embedding.quant_method = Quantised()
    keep_unpacked(nn.ModuleDict({"embedding": embedding, "head": layer(ParallelLMHead)}))
    assert type(embedding.quant_method) is Quantised


def test_a_product_that_is_asked_for_after_all_is_right() -> None:
    embedding = layer(VocabParallelEmbedding)
    embedding.quant_method = OnlyLookedUp()
    embedding.quant_method.process_weights_after_loading(embedding)
    inputs = torch.tensor([[1.0, -1.0]])
    assert torch.equal(embedding.quant_method.apply(embedding, inputs), inputs @ embedding.weight.T)
