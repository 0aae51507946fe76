"""Which rollouts of a run are recorded, and what is known of each: by the sampler, the rewards and the learners."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.messages import LearnerShard, Response, TokenRecord, TrainSequence
from orchestrator.config import RecordRolloutsConfig
from orchestrator.evaluation import TRAIN, EvaluatedSet
from orchestrator.grading import Grade
from orchestrator.problem_set import ProblemSet, Prompt
from orchestrator.problems.problem import Problem
from orchestrator.rollout_records import RolloutRow
from orchestrator.rollout_writer import RolloutWriter
from orchestrator.sampling import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedGroup:
    """A problem with its responses, and all that is known of them.

    Example:
        RecordedGroup(prompt=prompt, problem=problem, responses=(response,), grades=(grade,), records=[record])
    """

    prompt: Prompt
    problem: Problem
    responses: Sequence[Response]  # [G]
    grades: Sequence[Grade]  # [G]
    records: Sequence[TokenRecord | None]  # [G] None where no learner has seen the response

    def rows(self, step: int, split: str, tokenizer: Any) -> Iterator[RolloutRow]:
        """A row per response; turning tokens into text takes its time."""
        ids = [response.token_ids.tolist() for response in self.responses]
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        prompt = tokenizer.decode(self.prompt.token_ids.tolist())
        for sample, (response, grade, record) in enumerate(zip(self.responses, self.grades, self.records, strict=True)):
            yield RolloutRow(
                step=step,
                split=split,
                problem=self.prompt.number,
                sample=sample,
                source=self.problem.source,
                prompt=prompt,
                response=texts[sample],
                answer=self.problem.answer,
                extracted=grade.answer,
                prompt_token_ids=self.prompt.token_ids,
                response_token_ids=response.token_ids,
                tokens=_each(tokenizer, ids[sample]),
                train_logprobs=record.train_logprobs if record else None,
                rollout_logprobs=response.logprobs,
                score=grade.score,
                reward=grade.reward,
                advantage=_mean(record) if record else None,
                error=grade.error,
                finished=response.finished,
                weight_version=response.weight_version,
            )


def _each(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """Tokens as text, each on its own; of none, transformers would make one text."""
    return tuple(tokenizer.batch_decode([[token] for token in ids])) if ids else ()


def evaluated_groups(evaluated: EvaluatedSet, problems: ProblemSet) -> list[RecordedGroup]:
    """What there is to record of an evaluation of these problems."""
    return [
        RecordedGroup(
            prompt=prompt,
            problem=problems.problem(prompt.number),
            responses=responses,
            grades=grades,
            records=[None] * len(responses),
        )
        for prompt, responses, grades in zip(evaluated.prompts, evaluated.responses, evaluated.grades, strict=True)
    ]


class RolloutLog:
    """Has every k-th step's rollouts written, and those of all evaluations, to files named `<split>-<step>`.

    log = RolloutLog(config.record_rollouts, writer, tokenizer, {"train": training, "aime24": problems})
    """

    def __init__(
        self, config: RecordRolloutsConfig, writer: RolloutWriter, tokenizer: Any, problems: Mapping[str, ProblemSet]
    ) -> None:
        """Define the log.

        Args:
            config: when rollouts are recorded.
            writer: which turns rows into files in the background.
            tokenizer: of the model.
            problems: by the name of their set; `train` are those trained on.
        """
        self._config = config
        self._writer = writer
        self._tokenizer = deepcopy(tokenizer)  # while one encodes in one thread, it cannot decode in another
        self._problems = problems

    def due(self, step: int) -> bool:
        """Whether the training rollouts of step `step` are recorded."""
        return step % self._config.every == 0

    def training(self, step: int, kept: Sequence[Group], records: Sequence[TokenRecord]) -> None:
        """Record the groups that a step trains on.

        Args:
            step: number of the step.
            kept: its groups.
            records: what the learners say of the groups' responses, in order.
        """
        known = iter(records)
        groups = [
            RecordedGroup(
                prompt=Prompt(number=group.prompt, token_ids=group.prompt_ids),
                problem=self._problems[TRAIN].problem(group.prompt),
                responses=group.responses,
                grades=group.grades,
                records=[next(known) for _ in group.responses],
            )
            for group in kept
        ]
        self._write(step, TRAIN, groups)

    def evaluated(self, step: int, of_set: EvaluatedSet) -> None:
        """Record an evaluation."""
        self._write(step, of_set.name, evaluated_groups(of_set, self._problems[of_set.name]))

    def _write(self, step: int, split: str, groups: Sequence[RecordedGroup]) -> None:
        def rows() -> list[RolloutRow]:
            return [row for group in groups for row in group.rows(step, split, self._tokenizer)]

        self._writer.write(f"{split}-{step:06d}", rows)


def in_order(
    sequences: Sequence[TrainSequence], shards: Sequence[LearnerShard], kept: Sequence[Sequence[Sequence[TokenRecord]]]
) -> list[TokenRecord]:
    """The learners' records, [ranks][micro-batches][sequences] as they were dealt out, in the order of `sequences`."""
    found: dict[int, TokenRecord] = {}
    for shard, of_rank in zip(shards, kept, strict=True):
        for microbatch, records in zip(shard.microbatches, of_rank, strict=True):
            found |= {id(sequence): record for sequence, record in zip(microbatch, records, strict=True)}
    return [found[id(sequence)] for sequence in sequences]


def _mean(record: TokenRecord) -> float:
    """The advantage of a response; under the optimal token baseline, where it differs by token, their mean."""
    return float(np.mean(record.advantages)) if len(record.advantages) else 0.0
