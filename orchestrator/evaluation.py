"""Validation: how often the policy answers problems right that it never trains on."""

import numpy as np

from actors.messages import SampleRequest
from actors.settings import Count, Settings
from orchestrator.problem_set import ProblemSet
from orchestrator.sampling import Generate, seed_of

SET = "held_out"


class EvaluationConfig(Settings):
    """The `evaluation:` block: how often, on how many of the task's held-out problems, with how many samples of each.

    Example:
        >>> EvaluationConfig(every=10).key
        'eval/held_out/avg@1'
    """

    every: Count
    problems: Count = 128
    samples: Count = 1

    @property
    def key(self) -> str:
        """The metric: mean reward over all samples of all problems."""
        return f"eval/{SET}/avg@{self.samples}"


class Evaluation:
    """Samples the held-out problems with the weights of the step that asks, before its update."""

    def __init__(
        self, config: EvaluationConfig, last_step: int, seed: int, problems: ProblemSet, generate: Generate
    ) -> None:
        """Define the evaluation.

        Args:
            config: the `evaluation:` block.
            last_step: of the run, which is evaluated too.
            seed: of the run.
            problems: the held-out ones.
            generate: responses to requests, one tuple per request.
        """
        self._config = config
        self._last_step = last_step
        self._seed = seed
        self._problems = problems
        self._generate = generate

    def due(self, step: int) -> bool:
        """Whether step `step` evaluates."""
        return step % self._config.every == 0 or step == self._last_step

    def run(self, step: int) -> dict[str, float]:
        """The metrics of step `step`."""
        requests = [
            SampleRequest(prompt_ids=self._problems.encode(problem), seeds=self._seeds(step, problem))
            for problem in range(self._config.problems)
        ]
        answers = self._generate(requests)
        rewards = [self._problems.score(problem, responses) for problem, responses in enumerate(answers)]
        return {self._config.key: float(np.mean(rewards))}

    def _seeds(self, step: int, problem: int) -> tuple[int, ...]:
        return tuple(
            seed_of(f"evaluation/{self._seed}/{step}/{problem}/{sample}") for sample in range(self._config.samples)
        )
