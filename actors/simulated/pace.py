"""How long a stand-in takes for a call: a function of the config, of who it is and of the weights it has."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args
from zlib import crc32

import numpy as np

from actors.simulated.config import Phase, SimulationConfig
from actors.simulated.hashing import uniform

EARLIEST, LATEST = 0.3, 0.8  # shares of the time of a call
COMPUTING = ("generate", "gradients")
PHASES: tuple[Phase, ...] = get_args(Phase)


class Pace:
    """The pace of one stand-in.

    pace = Pace(config, "learner", 3)
    with pace.taking("gradients", version):
        ...                     # what little a stand-in does is part of the time it takes
    """

    def __init__(self, config: SimulationConfig, role: str, index: int) -> None:
        self._config = config
        self._moment = float(uniform(np.array([index], np.uint64))[0])
        self._key = (crc32(role.encode()) << 32) + index * 65_537 + config.seed * 1_000_003

    def seconds(self, phase: Phase, version: int) -> float:
        """How long a call of this phase takes at that weight version; anyone can tell beforehand."""
        key = (self._key * 31 + version) * len(PHASES) + PHASES.index(phase)
        share = 2 * float(uniform(np.array([key % 2**64], np.uint64))[0]) - 1
        return self._config.seconds.of(phase) * (1 + self._config.jitter * share)

    @contextmanager
    def taking(self, phase: Phase, version: int) -> Iterator[None]:
        """Have the with-block take that long, unless it takes longer by itself.

        Where there is something to compute it begins in the midst of that time, each stand-in's at another moment: on a
        machine that many of them share, what they do would else stand in the way of those who are called just then.
        """
        seconds = self.seconds(phase, version)
        until = time.monotonic() + seconds
        if phase in COMPUTING:
            time.sleep(seconds * (EARLIEST + (LATEST - EARLIEST) * self._moment))
        yield
        time.sleep(max(0.0, until - time.monotonic()))


def critical_path_s(config: SimulationConfig, rollouts: int, learners: int, version: int) -> dict[Phase, float]:
    """The slowest stand-in's own seconds in each phase of a step with one round of sampling.

    Args:
        config: of the stand-ins.
        rollouts: how many rollout workers there are.
        learners: how many ranks.
        version: of the weights that the step samples with.
    """
    engines = [Pace(config, "rollout", index) for index in range(rollouts)]
    ranks = [Pace(config, "learner", rank) for rank in range(learners)]
    return {
        "generate": max(pace.seconds("generate", version) for pace in engines),
        "gradients": max(pace.seconds("gradients", version) for pace in ranks),
        "apply": max(pace.seconds("apply", version) for pace in ranks),
        "publish": ranks[0].seconds("publish", version + 1),
    }
