"""The policy gradient of a whole step in plain autograd: one sequence at a time, unchunked, straight from METHOD."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from actors.config import LearnerConfig
from actors.messages import TrainSequence


def full_log_softmax(model: PreTrainedModel, sequence: TrainSequence, temperature: float) -> Tensor:
    """[T, V] log-probs of everything that could stand at each response token's place."""
    prompt, response = sequence.prompt_ids.tolist(), sequence.response_ids.tolist()
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits / temperature, dim=-1)


def token_weights(config: LearnerConfig, diff: list[float]) -> tuple[list[float], bool]:
    """METHOD section 5 for one sequence: a weight per token, and whether the sequence is dropped."""

    def clipped_exp(value: float) -> float:
        return math.exp(max(-20.0, min(20.0, value)))

    rho, whole = [clipped_exp(d) for d in diff], clipped_exp(sum(diff))
    correction = config.correction
    match correction.kind:
        case "none":
            return [1.0 for _ in rho], False
        case "token_tis":
            return [min(r, correction.cap) for r in rho], False
        case "sequence_tis":
            return [min(whole, correction.cap) for _ in rho], False
        case "token_mask":
            return [r if correction.lo <= r <= correction.hi else 0.0 for r in rho], False
        case "sequence_mask":
            return [whole for _ in rho], not correction.lo <= whole <= correction.hi
        case "geometric_mask":
            return [1.0 for _ in rho], not correction.lo <= clipped_exp(sum(diff) / len(diff)) <= correction.hi
    raise AssertionError(correction.kind)


def token_baselines(rewards: list[float], log_softmaxes: list[Tensor], targets: list[list[int]]) -> list[list[float]]:
    """METHOD section 6: B_t of each response to one prompt, by loops."""
    energies: list[list[float]] = []
    for table, tokens in zip(log_softmaxes, targets, strict=True):
        total, energy = 0.0, []
        for row, token in zip(table.detach().double(), tokens, strict=True):
            total += 1 - 2 * math.exp(row[token]) + float(row.exp().square().sum())
            energy.append(total)
        energies.append(energy)
    baselines = []
    for energy in energies:
        baselines.append([])
        for t in range(len(energy)):
            alive = [(reward, other[t]) for reward, other in zip(rewards, energies, strict=True) if len(other) > t]
            baselines[-1].append(sum(r * w for r, w in alive) / sum(w for _, w in alive))
    return baselines


def plain_gradient(
    model: PreTrainedModel,
    sequences: Sequence[TrainSequence],
    config: LearnerConfig,
    temperature: float,
    max_response_tokens: int,
) -> tuple[list[Tensor], float]:
    """Gradients of all parameters, and the loss. Sequences of one prompt share a group number."""
    model.zero_grad()
    tables = [full_log_softmax(model, sequence, temperature) for sequence in sequences]
    targets = [sequence.response_ids.tolist() for sequence in sequences]
    advantages = [[sequence.advantage] * len(sequence.response_ids) for sequence in sequences]
    if config.advantage == "optimal_token_baseline":
        for group in {sequence.group for sequence in sequences}:
            mine = [i for i, sequence in enumerate(sequences) if sequence.group == group]
            baselines = token_baselines(
                [sequences[i].advantage for i in mine], [tables[i] for i in mine], [targets[i] for i in mine]
            )
            for i, baseline in zip(mine, baselines, strict=True):
                advantages[i] = [sequences[i].advantage - b for b in baseline]
    terms = []  # of each sequence that is not dropped
    for table, tokens, sequence, values in zip(tables, targets, sequences, advantages, strict=True):
        logprobs = table[range(len(tokens)), tokens]
        diff = (logprobs.detach().double() - torch.from_numpy(sequence.rollout_logprobs).double()).tolist()
        weights, dropped = token_weights(config, diff)
        if not dropped:
            scale = torch.tensor([-w * a for w, a in zip(weights, values, strict=True)], dtype=logprobs.dtype)
            terms.append((scale * torch.exp(logprobs - logprobs.detach()), len(tokens)))
    match config.loss:
        case "token_mean":
            loss = sum(term.sum() for term, _ in terms) / sum(length for _, length in terms)
        case "sequence_mean":
            loss = sum(term.sum() / length for term, length in terms) / len(terms)
        case "constant":
            loss = sum(term.sum() for term, _ in terms) / (len(terms) * max_response_tokens)
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()], float(loss.detach())
