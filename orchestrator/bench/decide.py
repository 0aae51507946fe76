"""From the statistics of many learner ranks to the learning rate: messages that cross Ray, merged by the scheduler.

What a run counts as `time/decide`. The calls that bring a rank's statistics to the driver are those that compute its
gradients; told beside it is what such calls take when there is nothing to compute, which is up to Ray.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.config import LearnerConfig
from actors.corrections import CorrectionSums
from actors.gradient_noise import HalfSums
from actors.learner import Learner
from actors.lr_policies.length_triggered import LengthTriggeredConfig
from actors.messages import GradientReport
from actors.rollout_worker import RolloutWorker
from actors.scheduler import Scheduler
from actors.statistics import MismatchSums
from cluster.config import ClusterConfig, RestartsConfig
from cluster.placement import reserved
from cluster.plan import Bundle, Plan, Seat
from cluster.pool import Pool
from cluster.session import session
from cluster.waiting import Patience
from orchestrator.bench.result import Figure, Result
from orchestrator.crew.crew import Crew
from orchestrator.crew.restarts import Restarts

TARGETS_MS = {64: 10.0, 256: 40.0}  # by the number of ranks
HOSTS = 2  # processes that the simulated ranks share
SEQUENCES, LONGEST = 16, 256  # of each rank's part of a step
METRICS = {"response/length_mean": 128.0, "reward/mean": 0.5, "sampling/tokens": 4096.0}  # what a driver knows
WARM_UPS = 3
MS = 1000.0


class RankHost:
    """Some learner ranks that have computed already: each answers with the statistics of its own tokens."""

    def __init__(self) -> None:
        self._reports: dict[int, GradientReport] = {}

    def prepare(self, num_ranks: int) -> None:
        """Make the reports of all ranks."""
        self._reports = {rank: simulated_report(rank) for rank in range(num_ranks)}

    def report(self, rank: int) -> GradientReport:
        """What this rank has measured."""
        return self._reports[rank]


def simulated_report(rank: int) -> GradientReport:
    """The report of a rank whose sampler and learner differ a little; the same for the same rank."""
    rng = np.random.default_rng(rank)
    lengths = rng.integers(1, LONGEST + 1, SEQUENCES)
    rollout = -rng.exponential(0.7, lengths.sum())
    train = np.minimum(rollout + rng.normal(0, 0.02, rollout.size), 0.0)
    tokens = int(lengths.sum())
    return GradientReport(
        mismatch=MismatchSums.from_logprobs(train, rollout, lengths),
        correction=CorrectionSums(
            tokens=tokens, tokens_kept=tokens, tokens_counted=tokens, sequences=SEQUENCES, sequences_kept=SEQUENCES
        ),
        halves=HalfSums(
            first_tokens=tokens // 2, first_sequences=SEQUENCES // 2, first_square=0.4, second_square=0.5, product=0.2
        ),
        entropy_sum=0.6 * tokens,
        loss=0.01 * rng.normal(),
        grad_square_sum=0.3,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The workers of the benchmark.

    Example:
        Stage(hosts=pool_of_rank_hosts, crew=crew_with_a_scheduler)
    """

    hosts: Pool[RankHost]
    crew: Crew

    def ranks(self, num: int) -> Pool[RankHost]:
        """As many ranks as workers of one pool, several of them in the same process."""
        same = copy(self.hosts)
        same.workers = [self.hosts.workers[rank % len(self.hosts)] for rank in range(num)]
        return same


@contextmanager
def stage() -> Iterator[Stage]:
    """Ray with the scheduler in an actor of its own, and processes for the ranks."""
    host, scheduler = Seat(role="rank", cpus=0.1, gpus=0.0), Seat(role="scheduler", cpus=0.1, gpus=0.0)
    plan = Plan(bundles=(*[Bundle(seats=(host,))] * HOSTS, Bundle(seats=(scheduler,))), name="bench decide")
    patience = Patience(call_s=60.0, silence_s=30.0)
    policy = LengthTriggeredConfig(kind="length_triggered", lr=1e-6).build(1000)
    with ExitStack() as stack:
        stack.enter_context(session(ClusterConfig()))
        slots = stack.enter_context(reserved(plan, ClusterConfig().placement_timeout_s))
        hosts = Pool(RankHost, slots["rank"], [()] * HOSTS, env={}, patience=patience)
        stack.callback(hosts.close)
        arguments: tuple[Any, ...] = (policy, LearnerConfig(), {})
        deciding = Pool(Scheduler, slots["scheduler"], [arguments], env={}, patience=patience)
        stack.callback(deciding.close)
        crew = Crew(
            rollouts=Pool(RolloutWorker, [], [], env={}, patience=patience),
            learners=Pool(Learner, [], [], env={}, patience=patience),
            scheduler=deciding,
            restarts=Restarts(RestartsConfig(), lambda lost, remedy: None),
        )
        yield Stage(hosts=hosts, crew=crew)


def measure(ranks: Sequence[int], calls: int) -> Result:
    """Time decisions.

    Args:
        ranks: how many of them report, one figure each.
        calls: decisions that are timed for each.
    """
    figures: list[Figure] = []
    with stage() as placed:
        placed.hosts.broadcast(RankHost.prepare, max(ranks))
        step = 0
        for num in ranks:
            collected_ms, decided_ms = [], []
            gang = placed.ranks(num)
            for call in range(-WARM_UPS, calls):
                started = time.perf_counter()
                reports = gang.scatter(RankHost.report, range(num))
                collected = time.perf_counter()
                placed.crew.decide(step, reports, dict(METRICS), num_prompts=num)
                ended = time.perf_counter()
                step += 1
                if call >= 0:
                    collected_ms.append(MS * (ended - started))
                    decided_ms.append(MS * (ended - collected))
            figures += _figures(num, collected_ms, decided_ms)
    return Result(benchmark="decide", settings={"calls": calls, "hosts": HOSTS}, figures=tuple(figures))


def _figures(num: int, whole_ms: Sequence[float], decided_ms: Sequence[float]) -> Iterator[Figure]:
    for name, values, target in (
        (f"{num} ranks: statistics to scheduler to lr", decided_ms, TARGETS_MS.get(num)),
        (f"{num} ranks: that, and {num} calls that fetch the statistics", whole_ms, None),
    ):
        yield Figure.median(name, "ms", values, target)
