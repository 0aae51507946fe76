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
from orchestrator.grading import Grade
from orchestrator.problem_set import ProblemSet, Prompt

Generate = Callable[[Sequence[SampleRequest]], list[tuple[Response, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A prompt with all its responses and what they earned.

    Example:
        Group(prompt=17, prompt_ids=array([5, 14, 7], dtype=int32), responses=(first, second),
              grades=(Grade(score=1.0, reward=1.0), Grade(score=0.0, reward=0.0)))
    """

    prompt: int  # its number in the task's stream
    prompt_ids: IntArray  # [P]
    responses: tuple[Response, ...]  # [G]
    grades: tuple[Grade, ...]  # [G]

    @property
    def rewards(self) -> list[float]:
        """[G] what the responses are trained on."""
        return [grade.reward for grade in self.grades]

    @property
    def flat(self) -> bool:
        """All scores equal, as when all responses are right or all wrong, whatever their shaping adds."""
        scores = [grade.score for grade in self.grades]
        return min(scores) == max(scores)

    def sequences(self, place: int, advantage: AdvantageKind) -> list[TrainSequence]:
        """What the learners train on; `place` is the group's in the step's batch."""
        return [
            TrainSequence(
                group=place,
                sample=sample,
                prompt_ids=self.prompt_ids,
                response_ids=response.token_ids,
                rollout_logprobs=response.logprobs,
                advantage=float(value),
            )
            for sample, (response, value) in enumerate(
                zip(self.responses, group_advantages(advantage, self.rewards), strict=True)
            )
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledBatch:
    """Everything a step generated, and which groups of it are trained on.

    Example:
        SampledBatch(kept=(group,), generated=(group, flat_group), rounds=2, prompts_dropped=0)
    """

    kept: tuple[Group, ...]
    generated: tuple[Group, ...]
    rounds: int
    prompts_dropped: int  # too long

    def metrics(self) -> dict[str, float]:
        """Lengths over all that was generated (so that they exist when every group is flat), rewards, and shares."""
        responses = [response for group in self.generated for response in group.responses]
        lengths = np.array([len(response.token_ids) for response in responses])
        grades = [grade for group in self.generated for grade in group.grades]
        flat = [group for group in self.generated if group.flat]
        right = sum(group.grades[0].score > 0 for group in flat)
        kept_lengths = [len(response.token_ids) for group in self.kept for response in group.responses]
        measured = {
            "reward/mean": np.mean([grade.reward for grade in grades]),
            "reward/score_mean": np.mean([grade.score for grade in grades]),
            "reward/errors": sum(grade.error is not None for grade in grades),
            "response/length_mean": lengths.mean(),
            "response/length_max": lengths.max(),
            "response/length_min": lengths.min(),
            "response/clip_ratio": np.mean([not response.finished for response in responses]),
            "sampling/rounds": self.rounds,
            "sampling/groups": len(self.generated),
            "sampling/groups_kept": len(self.kept),
            "sampling/flat_right": right / len(self.generated),
            "sampling/flat_wrong": (len(flat) - right) / len(self.generated),
            "sampling/prompts_dropped": self.prompts_dropped,
            "sampling/tokens": lengths.sum(),
            "sampling/tokens_dropped": lengths.sum() - sum(kept_lengths),
        }
        if kept_lengths:
            measured["response/length_mean_kept"] = np.mean(kept_lengths)
        return {key: float(value) for key, value in measured.items()}


class Sampler:
    """Draws batches from an endless stream of prompts. Its whole state is `cursor`, the next unused prompt."""

    def __init__(self, config: RolloutConfig, seed: int, problems: ProblemSet, generate: Generate) -> None:
        """Define the sampler; nothing is sampled yet.

        Args:
            config: sizes of a batch and how flat groups are treated.
            seed: of the run.
            problems: to train on.
            generate: responses to requests, one tuple per request.
        """
        self._config = config
        self._seed = seed
        self._problems = problems
        self._generate = generate
        self.cursor = 0

    def next_batch(self, step: int, clock: PhaseClock) -> SampledBatch:
        """Sample until `prompts_per_step` groups can be trained on, at most `max_rounds` times.

        Without `filter_flat_groups` one round is always enough. Groups are kept in prompt order; what a last round
        brings beyond the batch is dropped.
        """
        wanted = self._config.prompts_per_step
        start = self.cursor
        generated: list[Group] = []
        kept: list[Group] = []
        rounds = 0
        while len(kept) < wanted and rounds < self._config.max_rounds:
            generated += self._round(step, self._round_size(wanted, len(kept), len(generated)), clock)
            kept = [group for group in generated if not (self._config.filter_flat_groups and group.flat)]
            rounds += 1
        passed_over = self.cursor - start - len(generated)
        return SampledBatch(
            kept=tuple(kept[:wanted]), generated=tuple(generated), rounds=rounds, prompts_dropped=passed_over
        )

    def _round_size(self, wanted: int, kept: int, generated: int) -> int:
        """As many prompts as should fill the batch at the share kept so far, at most a whole batch of them."""
        if kept == 0:
            return wanted
        return min(wanted, math.ceil((wanted - kept) * generated / kept))

    def _round(self, step: int, size: int, clock: PhaseClock) -> list[Group]:
        with clock.phase("rollout"):
            prompts = [self._draw() for _ in range(size)]
            requests = [
                SampleRequest(prompt_ids=prompt.token_ids, seeds=self._seeds(step, prompt.number)) for prompt in prompts
            ]
            answers = self._generate(requests)
        with clock.phase("score"):
            grades = self._problems.grade([prompt.number for prompt in prompts], answers)
        return [
            Group(prompt=prompt.number, prompt_ids=prompt.token_ids, responses=responses, grades=of_prompt)
            for prompt, responses, of_prompt in zip(prompts, answers, grades, strict=True)
        ]

    def _draw(self) -> Prompt:
        prompt = self._problems.draw(self.cursor)
        self.cursor = prompt.number + 1
        return prompt

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
