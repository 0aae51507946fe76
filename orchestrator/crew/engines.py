"""The rollout workers of a run: asked for responses, and replaced when one is lost."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from actors.messages import Response, SampleRequest
from actors.rollout_worker import EngineShape, RolloutWorker
from cluster.pool import Pool
from cluster.worker import WorkerLost
from orchestrator.crew.restarts import Restarts

T = TypeVar("T")


class Engines:
    """A pool of rollout workers that survives the loss of some.

    engines = Engines(pool, restarts, refresh)
    with engines.coming_up():
        ...                         # the time that they take to start can be used
    responses = engines.generate(requests)
    """

    def __init__(self, pool: Pool[RolloutWorker], restarts: Restarts, refresh: Callable[[], None]) -> None:
        """Take over workers that have been placed; none of them is up.

        Args:
            pool: the workers.
            restarts: how many losses are borne.
            refresh: called when fresh engines have come up, to give them the weights that all shall have.
        """
        self.pool = pool
        self.restarts = restarts
        self._refresh = refresh
        self._down = set(range(len(pool)))
        self._shape: EngineShape | None = None

    @property
    def shape(self) -> EngineShape:
        """Their sizes; they are all alike."""
        assert self._shape is not None, "they have to come up first"
        return self._shape

    @contextmanager
    def coming_up(self) -> Iterator[None]:
        """Start those that are down; they are up at the end of the with-block, which has the time for itself."""
        starting = self.pool.begin_some(RolloutWorker.start, sorted(self._down))
        yield
        for shape in starting():
            self._shape = shape
        self._down.clear()

    def generate(self, requests: Sequence[SampleRequest]) -> list[tuple[Response, ...]]:
        """Responses to requests, in their order.

        The whole share of a worker that is lost is sampled again by its successor, in the same order with the same
        seeds: in their last bits log-probs depend on what shares the batch.
        """
        shares = dict(enumerate(deal(requests, len(self.pool))))
        dealt: dict[int, list[tuple[Response, ...]]] = {}
        while missing := {i: share for i, share in shares.items() if i not in dealt}:
            answered, lost = self.pool.attempt(RolloutWorker.generate, missing)
            dealt |= answered
            if lost:
                self.replace(lost)
        return collect([dealt[i] for i in range(len(self.pool))])

    def sleep(self) -> None:
        """Have all of them give their GPU memory to the learners; they take it back when they are needed.

        Raises:
            WorkerLost: another role lost a worker meanwhile.
        """
        while True:
            try:
                self.pool.broadcast(RolloutWorker.sleep)
                return
            except WorkerLost as lost:
                self.replace([lost])

    def replace(self, lost: Sequence[WorkerLost]) -> None:
        """Fresh engines in place of the lost ones, with the weights that all have.

        Raises:
            WorkerLost: another role lost a worker meanwhile.
        """
        while True:
            self.note_lost(lost)
            names = ", ".join(self.pool.names[i] for i in sorted(self._down))
            self.restarts.spend(lost[0], f"{names} {'start' if len(self._down) > 1 else 'starts'} again")
            try:
                with self.coming_up():
                    pass
                self._refresh()
                return
            except WorkerLost as again:
                if again.role != lost[0].role:
                    raise
                lost = [again]

    def abandon(self) -> None:
        """Put fresh workers in all places, whatever these are at; they are down until they start."""
        self.pool.respawn(range(len(self.pool)))
        self._down = set(range(len(self.pool)))

    def note_lost(self, known: Sequence[WorkerLost] = ()) -> None:
        """Put fresh workers in the places of these and of all others that are lost; they are down until they start."""
        names = {lost.worker for lost in [*known, *self.pool.lost()]}
        lost = {i for i, name in enumerate(self.pool.names) if name in names}
        self._down |= self.pool.respawn(lost)


def deal(items: Sequence[T], num: int) -> list[list[T]]:
    """Deal out like cards.

    >>> deal("abcde", 2)
    [['a', 'c', 'e'], ['b', 'd']]
    """
    return [list(items[i::num]) for i in range(num)]


def collect(dealt: Sequence[Sequence[T]]) -> list[T]:
    """Take `deal` back.

    >>> collect([["a", "c", "e"], ["b", "d"]])
    ['a', 'b', 'c', 'd', 'e']
    """
    num = len(dealt)
    return [dealt[i % num][i // num] for i in range(sum(map(len, dealt)))]
