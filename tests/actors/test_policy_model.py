"""Padded micro-batches, and the embedded model's log-probs beside a plain Hugging Face forward pass."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from actors.messages import TrainSequence
from actors.policy_model import PaddedBatch, PolicyModel, UnsupportedModel

MODEL = str(Path(__file__).parents[2] / "orchestrator" / "demo" / "model")
CPU = torch.device("cpu")
TEMPERATURE = 0.8


def sequence(prompt: Sequence[int], response: Sequence[int]) -> TrainSequence:
    return TrainSequence(
        group=0,
        prompt_ids=np.array(prompt, np.int32),
        response_ids=np.array(response, np.int32),
        rollout_logprobs=np.zeros(len(response), np.float32),
        advantage=1.0,
    )


RAGGED = [sequence([5, 6, 7], [8, 9]), sequence([10], [11, 12, 13, 14, 15]), sequence([3, 4], [2])]


def scored(model: PolicyModel, sequences: Sequence[TrainSequence]) -> list[Tensor]:
    """Log-probs of each sequence's response."""
    batch = PaddedBatch(sequences, CPU)
    with torch.no_grad():
        return list(model(batch.input_ids, batch.positions, batch.targets).logprobs.split(batch.lengths))


@pytest.fixture(scope="module")
def model() -> PolicyModel:
    return PolicyModel.load(MODEL, TEMPERATURE, chunk_bytes=1024)


class TinyModel(nn.Module):
    """What PolicyModel asks of a model before it runs."""

    def __init__(self, bias: bool, softcap: float | None) -> None:
        super().__init__()
        self.head = nn.Linear(4, 8, bias=bias)
        self.config = SimpleNamespace(final_logit_softcapping=softcap)

    def get_output_embeddings(self) -> nn.Linear:
        return self.head


def test_every_response_token_is_predicted_at_the_token_before_it() -> None:
    batch = PaddedBatch(RAGGED, CPU)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 0], [10, 11, 12, 13, 14, 15], [3, 4, 2, 0, 0, 0]]
    assert batch.positions.tolist() == [2, 3, 6, 7, 8, 9, 10, 13]
    assert batch.targets.tolist() == [8, 9, 11, 12, 13, 14, 15, 2]
    assert batch.lengths == [2, 5, 1]


def test_a_response_without_tokens_takes_a_row_and_no_position() -> None:
    batch = PaddedBatch([sequence([5, 6], []), sequence([7], [8])], CPU)
    assert batch.input_ids.shape == (2, 2)
    assert (batch.positions.tolist(), batch.targets.tolist(), batch.lengths) == ([2], [8], [0, 1])


def test_an_empty_microbatch_still_runs_the_model_and_scores_nothing(model: PolicyModel) -> None:
    batch = PaddedBatch([], CPU)
    assert batch.input_ids.shape == (1, 1)
    assert batch.lengths == []
    scores = model(batch.input_ids, batch.positions, batch.targets)
    assert scores.logprobs.shape == scores.entropy.shape == (0,)
    scores.logprobs.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad()


def test_scores_are_those_of_a_plain_forward_pass_of_each_sequence_alone(model: PolicyModel) -> None:
    plain = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    for ours, (prompt, response) in zip(
        scored(model, RAGGED), ((one.prompt_ids, one.response_ids) for one in RAGGED), strict=True
    ):
        ids = torch.from_numpy(np.concatenate([prompt, response])).long()
        with torch.no_grad():
            log_softmax = torch.log_softmax(plain(ids[None]).logits[0].double() / TEMPERATURE, dim=-1)
        expected = log_softmax[len(prompt) - 1 : -1].gather(-1, ids[len(prompt) :, None]).squeeze(-1)
        torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-5)


def test_neighbours_and_padding_change_no_score(model: PolicyModel) -> None:
    longer = sequence([9] * 20, [10] * 30)
    together = scored(model, [*RAGGED, longer])
    for one, in_batch in zip(RAGGED, together, strict=False):
        torch.testing.assert_close(in_batch, scored(model, [one])[0], rtol=0, atol=1e-5)


def test_a_given_head_stands_in_for_the_models_own(model: PolicyModel) -> None:
    batch = PaddedBatch(RAGGED, CPU)
    with torch.no_grad():
        own = model(batch.input_ids, batch.positions, batch.targets).logprobs
        copied = model(batch.input_ids, batch.positions, batch.targets, model.gathered_head()).logprobs
        flat = model(batch.input_ids, batch.positions, batch.targets, torch.zeros_like(model.gathered_head())).logprobs
    assert torch.equal(own, copied)
    torch.testing.assert_close(flat, torch.full_like(flat, -float(np.log(32))))


def test_the_gathered_head_is_a_copy(model: PolicyModel) -> None:
    before = model.gathered_head()
    model.gathered_head().zero_()
    assert torch.equal(model.gathered_head(), before)
    assert before.any()


def test_tied_tensors_are_exported_under_both_of_their_names(model: PolicyModel) -> None:
    assert model.tied_names() == ("model.embed_tokens.weight", "lm_head.weight")
    exported = model.exported_state()
    assert torch.equal(exported["model.embed_tokens.weight"], exported["lm_head.weight"])


def test_a_model_with_a_head_of_its_own_has_no_tied_names() -> None:
    config = Qwen3Config(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=False,
    )
    assert PolicyModel(Qwen3ForCausalLM(config), 1.0, 1024).tied_names() is None


def test_weights_are_float32_whatever_the_file_holds(model: PolicyModel) -> None:
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_chunk_holds_as_many_float32_rows_of_logits_as_fit_and_at_least_one() -> None:
    plain = TinyModel(bias=False, softcap=None)
    assert PolicyModel(plain, 1.0, chunk_bytes=3 * 8 * 4 + 1).chunk_tokens == 3
    assert PolicyModel(plain, 1.0, chunk_bytes=1).chunk_tokens == 1


@pytest.mark.parametrize(("bias", "softcap"), [(True, None), (False, 30.0)])
def test_a_head_that_is_more_than_a_matrix_is_refused(bias: bool, softcap: float | None) -> None:
    with pytest.raises(UnsupportedModel, match="TinyModel: an output head with a bias or a soft cap"):
        PolicyModel(TinyModel(bias, softcap), 1.0, 1024)
