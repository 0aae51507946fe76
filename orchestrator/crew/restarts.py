"""How often lost workers are replaced before a run gives up."""

from collections.abc import Callable

from cluster.config import RestartsConfig
from cluster.worker import WorkerLost

Tell = Callable[[WorkerLost, str], None]


class RestartsExhausted(RuntimeError):
    """Workers of one role were lost too often in a row."""

    def __init__(self, lost: WorkerLost, times: int) -> None:
        losses = "1 loss" if times == 1 else f"{times} losses"
        super().__init__(f"{lost}; {losses} without a step done: cluster.restarts.{lost.role} is {times - 1}")
        self.lost = lost


class Restarts:
    """Counts losses by role. A step that was not done before makes the counts start again.

    >>> restarts = Restarts(RestartsConfig(rollout=1), tell=lambda lost, remedy: print(lost.worker, remedy))
    >>> restarts.spend(WorkerLost("rollout-0", "generate", "it died"), "it starts again")
    rollout-0 it starts again
    >>> restarts.progress()
    >>> restarts.spend(WorkerLost("rollout-1", "generate", "it died"), "it starts again")
    rollout-1 it starts again
    """

    def __init__(self, config: RestartsConfig, tell: Tell) -> None:
        """Start counting.

        Args:
            config: how many losses are borne.
            tell: gets every loss that is borne, and what is done about it.
        """
        self._tell = tell
        self._allowed: dict[str, int] = config.model_dump()
        self._spent: dict[str, int] = {}
        self.total = 0  # of the whole run

    def spend(self, lost: WorkerLost, remedy: str) -> None:
        """Count a loss that is about to be made good, and tell of it.

        Raises:
            RestartsExhausted: there were too many.
        """
        times = self._spent.get(lost.role, 0) + 1
        if times > self._allowed[lost.role]:
            raise RestartsExhausted(lost, times) from lost
        self._spent[lost.role] = times
        self.total += 1
        self._tell(lost, remedy)

    def progress(self) -> None:
        """A further step is done."""
        self._spent.clear()
