"""A step's batch: prompts in order, responses from the rollout workers, flat groups dropped and more sampled."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from actors.config import AdvantageKind, RolloutConfig
from actors.messages import IntArray, Response, SampleRequest, TrainSequence
from orchestrator.advantages import group_advantages
from orchestrator.clock import PhaseClock

Generate = Callable[[Sequence[SampleRequest]], list[tuple[Response, ...]]]
Score = Callable[[int, Sequence[Response]], list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A prompt with all its responses and their rewards.

    Example:
        Group(prompt=17, prompt_ids=array([5, 14, 7], dtype=int32), responses=(first, second), rewards=(1.0, 0.0))
    """

    prompt: int  # its number in the task's stream
    prompt_ids: IntArray  # [P]
    responses: tuple[Response, ...]  # [G]
    rewards: tuple[float, ...]  # [G]

    @property
    def flat(self) -> bool:
        """All rewards equal: nothing to learn, every advantage is zero."""
        return min(self.rewards) == max(self.rewards)

    def sequences(self, place: int, advantage: AdvantageKind) -> list[TrainSequence]:
        """What the learners train on; `place` is the group's in the step's batch."""
        return [
            TrainSequence(
                group=place,
                prompt_ids=self.prompt_ids,
                response_ids=response.token_ids,
                rollout_logprobs=response.logprobs,
                advantage=float(value),
            )
            for response, value in zip(self.responses, group_advantages(advantage, self.rewards), strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledBatch:
    """Everything a step generated, and which groups of it are trained on.

    Example:
        SampledBatch(kept=(group,), generated=(group, flat_group), rounds=2)
    """

    kept: tuple[Group, ...]
    generated: tuple[Group, ...]
    rounds: int

    def metrics(self) -> dict[str, float]:
        """Lengths over all that was generated (so that they exist when every group is flat), rewards, and shares."""
        responses = [response for group in self.generated for response in group.responses]
        lengths = np.array([len(response.token_ids) for response in responses])
        rewards = np.array([reward for group in self.generated for reward in group.rewards])
        flat = [group for group in self.generated if group.flat]
        right = sum(group.rewards[0] > 0 for group in flat)
        kept_lengths = [len(response.token_ids) for group in self.kept for response in group.responses]
        measured = {
            "reward/mean": rewards.mean(),
            "response/length_mean": lengths.mean(),
            "response/length_max": lengths.max(),
            "response/length_min": lengths.min(),
            "response/clip_ratio": np.mean([not response.finished for response in responses]),
            "sampling/rounds": self.rounds,
            "sampling/groups": len(self.generated),
            "sampling/groups_kept": len(self.kept),
            "sampling/flat_right": right / len(self.generated),
            "sampling/flat_wrong": (len(flat) - right) / len(self.generated),
            "sampling/tokens": lengths.sum(),
            "sampling/tokens_dropped": lengths.sum() - sum(kept_lengths),
        }
        if kept_lengths:
            measured["response/length_mean_kept"] = np.mean(kept_lengths)
        return {key: float(value) for key, value in measured.items()}


class Sampler:
    """Draws batches from an endless stream of prompts. Its whole state is `cursor`, the next unused prompt."""

    def __init__(
        self, config: RolloutConfig, seed: int, encode: Callable[[int], IntArray], generate: Generate, score: Score
    ) -> None:
        """Define the sampler; nothing is sampled yet.

        Args:
            config: sizes of a batch and how flat groups are treated.
            seed: of the run.
            encode: token ids of the prompt of a number.
            generate: responses to requests, one tuple per request.
            score: rewards of responses to the prompt of a number.
        """
        self._config = config
        self._seed = seed
        self._encode = encode
        self._generate = generate
        self._score = score
        self.cursor = 0

    def next_batch(self, step: int, clock: PhaseClock) -> SampledBatch:
        """Sample until `prompts_per_step` groups can be trained on, at most `max_rounds` times.

        Without `filter_flat_groups` one round is always enough. Groups are kept in prompt order; what a last round
        brings beyond the batch is dropped.
        """
        wanted = self._config.prompts_per_step
        generated: list[Group] = []
        kept: list[Group] = []
        rounds = 0
        while len(kept) < wanted and rounds < self._config.max_rounds:
            generated += self._round(step, self._round_size(wanted, len(kept), len(generated)), clock)
            kept = [group for group in generated if not (self._config.filter_flat_groups and group.flat)]
            rounds += 1
        return SampledBatch(kept=tuple(kept[:wanted]), generated=tuple(generated), rounds=rounds)

    def _round_size(self, wanted: int, kept: int, generated: int) -> int:
        """As many prompts as should fill the batch at the share kept so far, at most a whole batch of them."""
        if kept == 0:
            return wanted
        return min(wanted, math.ceil((wanted - kept) * generated / kept))

    def _round(self, step: int, size: int, clock: PhaseClock) -> list[Group]:
        prompts = range(self.cursor, self.cursor + size)
        self.cursor += size
        with clock.phase("rollout"):
            encoded = [self._encode(prompt) for prompt in prompts]
            requests = [
                SampleRequest(prompt_ids=ids, seeds=self._seeds(step, prompt))
                for prompt, ids in zip(prompts, encoded, strict=True)
            ]
            responses = self._generate(requests)
        with clock.phase("score"):
            return [
                Group(prompt=prompt, prompt_ids=ids, responses=answers, rewards=tuple(self._score(prompt, answers)))
                for prompt, ids, answers in zip(prompts, encoded, responses, strict=True)
            ]

    def _seeds(self, step: int, prompt: int) -> tuple[int, ...]:
        return tuple(response_seed(self._seed, step, prompt, sample) for sample in range(self._config.group_size))


def response_seed(run_seed: int, step: int, prompt: int, sample: int) -> int:
    """The seed of one response, in [0, 2**63): a hash, so that no two responses of a run share their randomness.

    Example:
        >>> response_seed(0, 3, 17, 0) == response_seed(0, 3, 17, 0) != response_seed(0, 3, 17, 1)
        True
    """
    return seed_of(f"{run_seed}/{step}/{prompt}/{sample}")


def seed_of(name: str) -> int:
    """A seed in [0, 2**63) that belongs to a name and, as a hash, to no other one."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 1
