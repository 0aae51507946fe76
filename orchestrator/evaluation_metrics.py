"""What an evaluation says: avg@n, maj@n and pass@n over problems, each with its standard error."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedProblem:
    """The n samples of one problem.

    Example:
        GradedProblem(scores=(1.0, 0.0, 1.0), answers=("18", "17", "18"), lengths=(211, 380, 190),
                      finished=(True, True, True))
    """

    scores: tuple[float, ...]  # [n] of the responses themselves, without shaping
    answers: tuple[str | None, ...]  # [n] as found in the responses; None where there was none
    lengths: tuple[int, ...]  # [n] tokens
    finished: tuple[bool, ...]  # [n] False where the length limit cut the response

    @property
    def average(self) -> float:
        """avg@n: the mean score."""
        return float(np.mean(self.scores))

    @property
    def passed(self) -> float:
        """pass@n: the best score."""
        return max(self.scores)

    @property
    def majority(self) -> float:
        """maj@n: the score of the answer that came most often.

        Responses without an answer have no vote; without any vote it is 0. Of answers that came equally often the
        mean: what choosing among them by lot would earn.
        """
        votes: dict[str, list[float]] = defaultdict(list)
        for answer, score in zip(self.answers, self.scores, strict=True):
            if answer is not None:
                votes[answer].append(score)
        if not votes:
            return 0.0
        most = max(map(len, votes.values()))
        return float(np.mean([np.mean(scores) for scores in votes.values() if len(scores) == most]))


def evaluation_keys(name: str, samples: int) -> tuple[str, ...]:
    """The metrics of an evaluation set.

    >>> evaluation_keys("aime24", 32)[0]
    'eval/aime24/avg@32'
    """
    scores = [f"{figure}@{samples}{end}" for figure in ("avg", "maj", "pass") for end in ("", "_se")]
    return tuple(f"eval/{name}/{key}" for key in (*scores, "length_mean", "clip_ratio", "errors", "prompts_dropped"))


def evaluation_metrics(
    name: str, problems: Sequence[GradedProblem], errors: int, prompts_dropped: int
) -> dict[str, float]:
    """The metrics of an evaluation set.

    Standard errors are over problems, which are the independent draws: the samples of a problem are not. Of a single
    problem there is none, and the key is absent.

    Args:
        name: of the set.
        problems: all with the same number of samples; at least one.
        errors: responses that could not be scored, and count as 0.
        prompts_dropped: problems that were left out because their prompt is too long.

    Returns:
        avg@n, maj@n, pass@n, each with `_se`; mean response length in tokens; share of responses cut at the limit.
    """
    samples = len(problems[0].scores)
    figures: Mapping[str, list[float]] = {
        "avg": [problem.average for problem in problems],
        "maj": [problem.majority for problem in problems],
        "pass": [problem.passed for problem in problems],
    }
    metrics: dict[str, float] = {}
    for figure, values in figures.items():
        key = f"eval/{name}/{figure}@{samples}"
        metrics[key] = float(np.mean(values))
        if len(values) > 1:
            metrics[f"{key}_se"] = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    metrics[f"eval/{name}/length_mean"] = float(np.mean([problem.lengths for problem in problems]))
    metrics[f"eval/{name}/clip_ratio"] = 1.0 - float(np.mean([problem.finished for problem in problems]))
    metrics[f"eval/{name}/errors"] = float(errors)
    metrics[f"eval/{name}/prompts_dropped"] = float(prompts_dropped)
    return metrics
