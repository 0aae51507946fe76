"""The weight-sync self-test: before a run begins, proof that the weights the learners send are those that sample."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actors.learner import Learner
from actors.messages import FloatArray, IntArray, Response, SampleRequest, TrainSequence
from actors.rollout_worker import EngineShape, IncompleteUpdate, RolloutWorker
from cluster.pool import Pool

# Perturbed weights amplify rounding, too: far enough above the floor, and above noise where the floor is nearly zero.
TOLERATED_RATIO = 8.0
TOLERATED_DIFFERENCE = 0.01
LARGEST_FLOOR = 0.5  # nats; beyond it engine and learner compute different models, and nothing would show
PROBE_TOKENS = 16
NUM_SHORT_PROBES = 8
PERTURBATION_SEED = 20_260_101


class WeightSyncError(RuntimeError):
    """Weights do not arrive as sent; `part` is what is stale."""

    def __init__(self, part: str, detail: str) -> None:
        super().__init__(f"weight-sync self-test failed: {part}: {detail}")
        self.part = part
        self.detail = detail

    def __reduce__(self) -> tuple[type["WeightSyncError"], tuple[str, str]]:
        return WeightSyncError, (self.part, self.detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTestReport:
    """What a passed self-test measured: mean absolute log-prob differences of the worst probe.

    Example:
        SelfTestReport(floor=0.004, perturbed=0.009, limit=0.032, syncs=2)
    """

    floor: float  # on the unperturbed weights
    perturbed: float  # after the perturbation had been sent
    limit: float  # the largest difference that would have passed
    syncs: int


def probe_lengths(block_size: int, max_model_len: int) -> list[int]:
    """Prompt lengths of the probes; the last is longer than two KV-cache blocks, so that a kept prefix would show.

    None is longer than what the engine takes: prompt and response have `max_model_len` tokens together.
    """
    wanted = [8 + i for i in range(NUM_SHORT_PROBES)] + [2 * block_size + 8]
    return [min(length, max_model_len - PROBE_TOKENS) for length in wanted]


class SelfTest:
    """Perturbs every weight strongly, syncs, compares log-probs, restores, syncs: two syncs when all is well."""

    def __init__(
        self,
        rollouts: Pool[RolloutWorker],
        learners: Pool[Learner],
        text: IntArray,
        shape: EngineShape,
        version: int = 0,
    ) -> None:
        """Define the test.

        Args:
            rollouts: the workers to be tested, all of them.
            learners: the gang that sends.
            text: [n] token ids to cut probe prompts from, as the model knows them.
            shape: of the engines.
            version: of the weights, before and after.
        """
        self._rollouts = rollouts
        self._learners = learners
        lengths = probe_lengths(shape.block_size, shape.max_model_len)
        self._seen = _cut(text, lengths, offset=0)
        self._fresh = _cut(text, lengths, offset=len(text) // 2 + 1)
        self._version = version
        self._syncs = 0

    def run(self) -> SelfTestReport:
        """Run the test; the weights are afterwards what they were before.

        Raises:
            WeightSyncError: naming what did not arrive, or that the prefix cache was kept.
        """
        floor = max(self._differences(self._seen))
        if not floor <= LARGEST_FLOOR:
            raise WeightSyncError("engine and learner disagree before anything is sent", f"by {floor:.3g} nats a token")
        limit = max(TOLERATED_RATIO * floor, TOLERATED_DIFFERENCE)
        self._learners.broadcast(Learner.perturb, PERTURBATION_SEED)
        self._sync()
        differences = self._differences(self._seen)
        if not max(differences) <= limit:  # not <=: NaN fails, too
            raise self._diagnosis(differences, limit, floor)
        self._learners.broadcast(Learner.restore)
        self._sync()
        return SelfTestReport(floor=floor, perturbed=max(differences), limit=limit, syncs=self._syncs)

    def _sync(self) -> None:
        try:
            self._learners.needing(self._rollouts).broadcast(Learner.publish, self._version)
        except IncompleteUpdate as error:
            raise WeightSyncError(part_of(error.layer + "."), f"{error} at a rollout worker") from error
        self._syncs += 1

    def _differences(self, prompts: Sequence[IntArray]) -> list[float]:
        """For each rollout worker the mean absolute log-prob difference of its worst probe."""
        by_tokens: dict[tuple[bytes, ...], list[FloatArray]] = {}
        differences = []
        for answers in self._answers(prompts):
            # With the same weights and seeds most workers say the same: the learners need not hear all of them.
            tokens = tuple(answer.response_ids.tobytes() for answer in answers)
            if tokens not in by_tokens:
                by_tokens[tokens] = self._scores(answers)
            differences.append(_worst(by_tokens[tokens], answers))
        return differences

    def _answers(self, prompts: Sequence[IntArray]) -> list[list[TrainSequence]]:
        requests = [SampleRequest(prompt_ids=prompt, seeds=(i,)) for i, prompt in enumerate(prompts)]
        sampled = self._rollouts.broadcast(RolloutWorker.generate, requests, max_tokens=PROBE_TOKENS)
        return [
            [_sequence(prompt, answer) for prompt, (answer,) in zip(prompts, of_one, strict=True)] for of_one in sampled
        ]

    def _difference(self, answers: Sequence[TrainSequence], stale: Sequence[str] = ()) -> float:
        return _worst(self._scores(answers, stale), answers)

    def _scores(self, answers: Sequence[TrainSequence], stale: Sequence[str] = ()) -> list[FloatArray]:
        return self._learners.broadcast(Learner.score, answers, stale)[0]

    def _diagnosis(self, differences: Sequence[float], limit: float, floor: float) -> WeightSyncError:
        worst = int(np.argmax(differences))
        seen = f"log-probs differ by {differences[worst]:.3g} (floor {floor:.3g}, limit {limit:.3g})"
        name = self._rollouts.names[worst]
        fresh = self._answers(self._fresh)[worst]
        if self._difference(fresh) <= limit:
            return WeightSyncError("the prefix cache", f"{name} goes on using KV of old weights; {seen}")
        names = self._learners.first(Learner.tensor_names)
        # A whole part first, as when a source leaves it out; then each tensor alone. Without a further sync: the stale
        # tensors are those whose old values let the learners explain what the engine computed.
        for candidates in list(weight_groups(names).values()), [[tensor] for tensor in names]:
            found = min(candidates, key=lambda stale: self._difference(fresh, stale))
            if self._difference(fresh, found) <= limit:
                return WeightSyncError(part_of(found[0]), f"{_listed(found)} did not arrive at {name}; {seen}")
        return WeightSyncError("more than one part of the model", f"did not arrive at {name}; {seen}")


def _worst(scored: Sequence[FloatArray], answers: Sequence[TrainSequence]) -> float:
    """The mean absolute difference of the probe where it is largest; NaN if there is any."""
    per_probe = [
        float(np.abs(logprobs.astype(np.float64) - answer.rollout_logprobs).mean())
        for logprobs, answer in zip(scored, answers, strict=True)
    ]
    return max(per_probe, key=lambda value: (np.isnan(value), value))


def weight_groups(names: Sequence[str]) -> dict[str, list[str]]:
    """Tensor names by the part of the model they belong to, in the model's order.

    Example:
        >>> list(weight_groups(["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "lm_head.weight"]))
        ['embedding', 'layer 0', 'output head']
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(part_of(name), []).append(name)
    return groups


def part_of(name: str) -> str:
    """The part of the model a tensor belongs to: embedding, layer N, final norm or output head."""
    layer = re.search(r"(?:layers|h|blocks)\.(\d+)\.", name)
    if layer:
        return f"layer {layer.group(1)}"
    if "embed" in name or "wte" in name:
        return "embedding"
    return "output head" if "lm_head" in name else "final norm"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _cut(text: IntArray, lengths: Sequence[int], offset: int) -> list[IntArray]:
    """Pieces of the given lengths, one after the other from `offset` on, around the end of the text if need be."""
    pieces = []
    for length in lengths:
        pieces.append(np.take(text, range(offset, offset + length), mode="wrap"))
        offset += length
    return pieces


def _sequence(prompt: IntArray, answer: Response) -> TrainSequence:
    return TrainSequence(
        group=0, prompt_ids=prompt, response_ids=answer.token_ids, rollout_logprobs=answer.logprobs, advantage=0.0
    )
