"""Validation: how the policy does on named sets of problems that it never trains on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field, model_validator

from actors.messages import Response, SampleRequest
from actors.settings import Count, Settings
from orchestrator.config_errors import FieldRule
from orchestrator.evaluation_metrics import GradedProblem, evaluation_keys, evaluation_metrics
from orchestrator.grading import Grade
from orchestrator.problem_set import ProblemSet, Prompt
from orchestrator.sampling import Generate, seed_of

HELD_OUT = "held_out"  # the name of the set that a task itself holds out
TRAIN = "train"  # not the name of a set
SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class EvaluationConfig(Settings):
    """The `evaluation:` block: how often, on which sets, with how many samples of each problem.

    Example:
        >>> EvaluationConfig(every=10).keys()[0]
        'eval/held_out/avg@1'
    """

    every: Count
    sets: dict[SetName, str] = Field(default_factory=dict, description="files by name; none: what the task holds out")
    problems: Count | None = Field(None, description="the first so many of each set; null all, or 128 made-up ones")
    samples: Count = 1
    temperature: float | None = Field(None, ge=0, description="null that of the rollouts; 0 the likeliest token")

    @model_validator(mode="after")
    def _sets_are_not_trained_on(self) -> Self:
        if TRAIN in self.sets:
            raise FieldRule(f"evaluation.sets.{TRAIN}", "another name: this one stands for what is trained on")
        return self

    @model_validator(mode="after")
    def _greedy_is_always_the_same(self) -> Self:
        if self.temperature == 0 and self.samples > 1:
            raise FieldRule("evaluation.samples", "1 at temperature 0, where all samples are the same")
        return self

    def names(self) -> tuple[str, ...]:
        """Of the sets."""
        return tuple(self.sets) or (HELD_OUT,)

    def keys(self) -> tuple[str, ...]:
        """The metrics that an evaluation logs."""
        return tuple(key for name in self.names() for key in evaluation_keys(name, self.samples))


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedSet:
    """Everything that was sampled for a set and what it earned.

    Example:
        EvaluatedSet(name="aime24", prompts=[prompt], responses=[(first, second)], grades=[(right, wrong)],
                     prompts_dropped=0)
    """

    name: str
    prompts: Sequence[Prompt]
    responses: Sequence[tuple[Response, ...]]  # [problems][n]
    grades: Sequence[tuple[Grade, ...]]  # [problems][n]
    prompts_dropped: int  # too long

    def metrics(self) -> dict[str, float]:
        """Of the set."""
        graded = [
            GradedProblem(
                scores=tuple(grade.score for grade in grades),
                answers=tuple(grade.answer for grade in grades),
                lengths=tuple(len(response.token_ids) for response in responses),
                finished=tuple(response.finished for response in responses),
            )
            for responses, grades in zip(self.responses, self.grades, strict=True)
        ]
        errors = sum(grade.error is not None for grades in self.grades for grade in grades)
        return evaluation_metrics(self.name, graded, errors, self.prompts_dropped)


class Evaluation:
    """Samples its sets with the weights of the step that asks, before the step's update."""

    def __init__(
        self,
        config: EvaluationConfig,
        last_step: int,
        seed: int,
        sets: Mapping[str, ProblemSet],
        generate: Generate,
    ) -> None:
        """Define the evaluation.

        Args:
            config: the `evaluation:` block.
            last_step: of the run, which is evaluated too.
            seed: of the run.
            sets: by name.
            generate: responses to requests, one tuple per request.

        Raises:
            ConfigError: all prompts of a set are too long.
        """
        self._config = config
        self._last_step = last_step
        self._seed = seed
        self._sets = sets
        self._prompts = {name: problems.first(config.problems) for name, problems in sets.items()}
        self._generate = generate

    def due(self, step: int) -> bool:
        """Whether step `step` evaluates."""
        return step % self._config.every == 0 or step == self._last_step

    def run(self, step: int, keep: Callable[[int, EvaluatedSet], None] | None = None) -> dict[str, float]:
        """The metrics of step `step`, of all sets; `keep` is told of everything that was sampled."""
        metrics: dict[str, float] = {}
        for name in self._sets:
            evaluated = self.evaluate(step, name)
            if keep is not None:
                keep(step, evaluated)
            metrics |= evaluated.metrics()
        return metrics

    def evaluate(self, step: int, name: str) -> EvaluatedSet:
        """Sample and grade one set."""
        prompts = self._prompts[name]
        requests = [
            SampleRequest(
                prompt_ids=prompt.token_ids,
                seeds=self._seeds(step, name, prompt.number),
                temperature=self._config.temperature,
            )
            for prompt in prompts
        ]
        responses = self._generate(requests)
        grades = self._sets[name].grade([prompt.number for prompt in prompts], responses)
        dropped = self._sets[name].count(self._config.problems) - len(prompts)
        return EvaluatedSet(name=name, prompts=prompts, responses=responses, grades=grades, prompts_dropped=dropped)

    def _seeds(self, step: int, name: str, problem: int) -> tuple[int, ...]:
        return tuple(
            seed_of(f"evaluation/{self._seed}/{step}/{name}/{problem}/{sample}")
            for sample in range(self._config.samples)
        )
