"""Processes killed or stopped at the moments that `EVENKEEL_FAULTS` names."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from actors.faults import Strike
from cluster.pool import Pool
from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.crew.crew import Crew

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class FaultInjection:
    """Strikes a run's processes, each strike once, also when its step is done again.

    clock = PhaseClock(FaultInjection(faults.strikes, crew).at(step))
    """

    def __init__(self, strikes: Sequence[Strike], crew: Crew) -> None:
        self._left = list(strikes)
        self._crew = crew

    def at(self, step: int) -> Callable[[str], None]:
        """What is to be told of each phase of a step when it begins."""

        def entered(phase: str) -> None:
            for strike in [strike for strike in self._left if (strike.step, strike.phase) == (step, phase)]:
                self._left.remove(strike)
                if strike.after_s:
                    timer = threading.Timer(strike.after_s, self._strike, [strike])
                    timer.daemon = True
                    timer.start()
                else:
                    self._strike(strike)

        return entered

    def _strike(self, strike: Strike) -> None:
        signum = SIGNALS[strike.action]
        if strike.role == "driver":
            os.kill(os.getpid(), signum)
            return
        crew = self._crew
        pools: dict[str, Pool[Any]] = {
            "rollout": crew.rollouts,
            "learner": crew.learners,
            "scheduler": crew.scheduler,
        }
        pools[strike.role].strike(strike.index, signum)


def check_strikes(strikes: Sequence[Strike], config: ExperimentConfig) -> None:
    """See to it that those who are to be struck will be there.

    Raises:
        ConfigError: they will not.
    """
    numbers = {"rollout": config.rollout.workers, "learner": config.learner.workers}
    for strike in strikes:
        number = numbers.get(strike.role, 1)
        if strike.index >= number:
            expected = f"a number below {number}: this run has {number} of that role"
            raise ConfigError("environment", "EVENKEEL_FAULTS", f"{strike.role} {strike.index}", expected)
        if strike.step >= config.steps:
            raise ConfigError("environment", "EVENKEEL_FAULTS", f"step {strike.step}", f"a step below {config.steps}")
