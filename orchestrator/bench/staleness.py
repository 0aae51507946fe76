"""Steps whose batch was sampled during the step before, against steps one after the other: real runs of stand-ins."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from cluster.config import ClusterConfig
from cluster.session import session
from orchestrator.bench.paced_run import FILE, Turn, kept, paced_run_in
from orchestrator.bench.pairs import Pairs, interleaved
from orchestrator.bench.result import Figure, Result
from orchestrator.bench.workloads import Workload
from orchestrator.config import ExperimentConfig
from orchestrator.model_files import find_model

TARGET = 1.7
WORKERS = 2  # of each role
WARM_UPS = 1
PUBLISH, APPLY = 0.05, 0.05  # shares of the learning, which cannot overlap with sampling; the rest are the gradients
PHASES = ("rollout", "score", "gradients", "await_rollout", "decide", "apply", "publish")


def measure(turns: int, steps_per_turn: int, seconds: float) -> Result:
    """Time two runs that take turns, each held while the other works.

    Args:
        turns: of each run that are timed.
        steps_per_turn: of a run, one after the other.
        seconds: that sampling takes in a step, and as long again what is learnt from it, with the weights' way back.
    """
    turns_at: dict[int, list[Turn]] = {0: [], 1: []}
    with ExitStack() as stack:
        opened = stack.enter_context(session(ClusterConfig()))
        fresh, stale = (
            kept(stack.enter_context(paced_run_in(opened, workload(staleness, seconds), steps_per_turn)).turn, of_run)
            for staleness, of_run in turns_at.items()
        )
        interleaved(stale, fresh, turns, warm_ups=WARM_UPS)
    settings = {"turns": turns, "steps_per_turn": steps_per_turn, "seconds": seconds, "workers": WORKERS}
    figures = figures_of(turns_at[0][WARM_UPS:], turns_at[1][WARM_UPS:])
    return Result(benchmark="staleness", settings=settings, figures=tuple(figures))


def workload(staleness: int, seconds: float) -> Workload:
    """A run of stand-ins that learn for as long as they sample.

    Args:
        staleness: `max_staleness`.
        seconds: of each of the two.
    """
    learning = {"gradients": 1 - APPLY - PUBLISH, "apply": APPLY, "publish": PUBLISH}
    shares = {"start": 0.1, "generate": 1.0, **learning}
    config = ExperimentConfig.model_validate(
        {
            "name": f"bench-staleness-{staleness}",
            "model": {"path": "embedded"},
            "task": {"kind": "arithmetic", "digits": 3},
            "rollout": {
                "workers": WORKERS,
                "cpus_per_worker": 0.1,
                "prompts_per_step": 8,
                "group_size": 4,
                "max_response_tokens": 64,
            },
            "learner": {"workers": WORKERS, "cpus_per_worker": 0.1},
            "scheduler": {"kind": "constant", "lr": 1e-4},
            "steps": 1_000_000,
            "max_staleness": staleness,
            "checkpoint": None,
            "simulation": {"seconds": {phase: share * seconds for phase, share in shares.items()}},
        }
    )
    return Workload(name=f"staleness {staleness}", config=config, model=find_model(config, FILE), target=TARGET)


def figures_of(fresh: Sequence[Turn], stale: Sequence[Turn]) -> Iterator[Figure]:
    """How much faster steps are, how old their tokens were, and where the time went.

    Args:
        fresh: turns at `max_staleness` 0.
        stale: those at 1, each beside one at 0 in time.
    """
    rates = Pairs(ours=tuple(map(_rate, stale)), bare=tuple(map(_rate, fresh)))
    yield Figure(
        name="steps per second at max_staleness 1 / at 0",
        value=rates.ratio,
        target=TARGET,
        at_least=True,
        spread=rates.ratios,
        pairs=rates,
    )
    for staleness, turns in enumerate((fresh, stale)):
        yield Figure.median(f"at {staleness}: a step", "s", [1 / _rate(turn) for turn in turns])
        records = [record.metrics for turn in turns for record in turn.records]
        for key in ("sampling/staleness_mean", "sampling/staleness_max"):
            # A run at 0 does not record it: it would stop at a token of older weights.
            ages = [metrics.get(key, 0.0) for metrics in records]
            yield Figure.median(f"at {staleness}: {key}", "updates", ages)
        for phase in PHASES:
            if found := [metrics[f"time/{phase}"] for metrics in records if f"time/{phase}" in metrics]:
                yield Figure.median(f"at {staleness}: {phase} of a step", "s", found)


def _rate(turn: Turn) -> float:
    return len(turn.records) / turn.seconds
