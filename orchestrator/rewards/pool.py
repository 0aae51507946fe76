"""Processes that score responses, so that nothing a model or a user's function does can stop a run."""

import threading
from collections.abc import Sequence
from typing import Self

from orchestrator.config_errors import ConfigError
from orchestrator.rewards.config import FormatConfig, LimitsConfig, PythonReward, RewardConfig
from orchestrator.rewards.dispatch import BadStart, Dispatch, Worker
from orchestrator.rewards.nursery import Nursery, NurseryLost
from orchestrator.rewards.scorers import Scoring
from orchestrator.rewards.scores import RewardItem, Score


class RewardPool:
    """Scores responses in processes of its own, within limits of time and memory.

    - A response whose scoring hangs, raises, kills its process or runs out of memory scores 0 with `error` set;
      everything else goes on.
    - A process that takes longer than a twentieth of the time limit for one response is parked: it goes on up to the
      limit, while a fresh one takes its place and the rest of what it was sent. At most 16 are parked.
    - When nothing at all could be scored for the time limit, all that is left scores 0 as an error. A function that
      always hangs delays a call by about the limit, not by responses times limit.
    - The processes load neither torch nor ray nor vLLM, see no Ctrl-C, and die with the driver however it dies, with
      what they have started themselves. What they print goes to /dev/null.
    - They import from where the driver does, the folder it was started in first. A user's function is imported anew
      in each process and keeps what it remembers until that process is replaced. It must not matter which one scores.

    with RewardPool(MathReward(), LimitsConfig()) as pool:
        pool.score([RewardItem(response=r"so \\boxed{18}", answer="18")])   # [Score(value=1.0, answer="18")]
    """

    def __init__(self, config: RewardConfig, limits: LimitsConfig, form: FormatConfig | None = None) -> None:
        """Start the processes and have each load what it scores with.

        Args:
            config: of the reward.
            limits: of each process.
            form: what earns a bonus beside the score.

        Raises:
            ConfigError: the user's function cannot be imported or called.
        """
        self._limits = limits
        self._nursery = Nursery(Scoring(config, form), limits)
        self._workers: list[Worker] = []  # idle between two calls
        self._lock = threading.Lock()
        try:
            self._dispatch([]).start()
        except BadStart as error:
            self.close()
            if isinstance(config, PythonReward):
                expected = f"a function that a reward process can import ({error})"
                raise ConfigError("", "task.function", config.function, expected) from None
            raise
        except BaseException:
            self.close()
            raise

    def score(self, items: Sequence[RewardItem]) -> list[Score]:
        """One score per item, in order; may be called from any thread, one call after the other.

        A process that can no longer be started, which it could when the pool was built, counts as an error of all
        that was to be scored.
        """
        with self._lock:
            try:
                return self._dispatch(items).run()
            except (BadStart, NurseryLost) as error:
                self._restart()
                return [Score.failed(f"no process to score with: {error}")] * len(items)
            except BaseException:
                self._restart()
                raise

    def close(self) -> None:
        """End all processes."""
        self._restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _dispatch(self, items: Sequence[RewardItem]) -> Dispatch:
        return Dispatch(items, self._workers, self._limits.num_workers(), self._nursery, self._limits.time_limit_s)

    def _restart(self) -> None:
        """Drop every process; the next call starts new ones."""
        for worker in self._workers:
            worker.frames.close()
        self._workers.clear()
        self._nursery.close()
