"""Lends crews to runs, one after the other or side by side, and keeps them up in between."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

from actors.faults import Faults
from cluster.fit import shortfall
from cluster.placement import PlacementError, nodes
from cluster.plan import Plan
from cluster.session import Session
from orchestrator.crew.crew import Crew
from orchestrator.crew.standing import CrewRequest, StandingCrew

# Idle workers hold memory, of which the cluster knows nothing: so many crews stay up beside one that must be started.
MOST_IDLE = 1


class Crews:
    """The crews of a command, for any number of threads: each crew is lent to one at a time.

    with Crews(session, warm=True) as crews:
        with crews.lend(CrewRequest(config=config, model=model)) as (crew, is_fresh):
            ...                         # up, at the weights of the model
        with crews.lend(CrewRequest(config=other, model=model)) as (crew, is_fresh):
            ...                         # the same workers if they fit; only the scheduler is another one
    """

    def __init__(self, session: Session, *, warm: bool = False) -> None:
        """Define the keeper; nothing is started.

        Args:
            session: the connection to Ray.
            warm: keep workers up for later runs; else they are gone after the run.
        """
        self._session = session
        self._warm = warm
        self._changed = threading.Condition()  # guards what follows
        self._idle: list[StandingCrew] = []  # the one that was used last at the end
        self._lent: list[StandingCrew] = []  # and those that are being placed
        self._is_over = False

    @property
    def are_private(self) -> bool:
        """Whether they are on a Ray that is this command's own."""
        return self._session.local

    @contextmanager
    def lend(self, request: CrewRequest) -> Iterator[tuple[Crew, bool]]:
        """A crew that is up, at the weights that the run begins with; and whether it was started for this run.

        While other threads have so many crews that there is no room for another, it waits until one is given back. The
        end of a with-block by an exception is the end of the workers, too.

        Raises:
            PlacementError: the cluster has no room, also without the workers that were idle; or the keeper has ended.
            RestartsExhausted, RunFolderFull: as the workers' start finds them.
        """
        keeps = self._warm and request.faults == Faults()
        wanted = StandingCrew(request, self._session)
        standing, superfluous = self._claim(wanted, keeps=keeps)
        is_fresh, is_whole = standing is wanted, False
        try:
            _close(superfluous)
            if is_fresh:
                crew = self._place(standing, request)
                crew.start(request.checkpoint, request.version)
            else:
                crew = standing.renew(request)
            if keeps and request.checkpoint is None:
                standing.save_origin(request)
            yield crew, is_fresh
            is_whole = True
        finally:
            self._take_back(standing, keep=keeps and is_whole)

    def _claim(self, wanted: StandingCrew, *, keeps: bool) -> tuple[StandingCrew, list[StandingCrew]]:
        """An idle crew like the wanted one, else that one itself, to be placed once others have made room: those."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._can_be_had(wanted))
            if self._is_over:
                raise PlacementError("no workers are lent any more")
            standing = next((idle for idle in reversed(self._idle) if keeps and idle.is_like(wanted)), wanted)
            self._lent.append(standing)
            if standing is not wanted:
                self._idle.remove(standing)
                return standing, []
            stay = self._idle[-MOST_IDLE:] if self._has_room(self._idle[-MOST_IDLE:]) else []
            superfluous, self._idle = [idle for idle in self._idle if idle not in stay], stay
            return standing, superfluous

    def _can_be_had(self, wanted: StandingCrew) -> bool:
        """Whether no crew need be given back first. What never fits the cluster has to refuse."""
        is_there = any(idle.is_like(wanted) for idle in self._idle)
        return is_there or not self._lent or self._has_room([wanted]) or bool(shortfall(wanted.plan, nodes()))

    def _has_room(self, others: Sequence[StandingCrew]) -> bool:
        """Whether the cluster is large enough for those that are lent and for these."""
        plans = [standing.plan for standing in [*self._lent, *others]]
        return not shortfall(Plan(bundles=tuple(bundle for plan in plans for bundle in plan.bundles)), nodes())

    def _place(self, standing: StandingCrew, request: CrewRequest) -> Crew:
        try:
            return standing.place(request)
        except PlacementError:
            with self._changed:
                superfluous, self._idle = self._idle, []
            if not superfluous:
                raise
        _close(superfluous)
        return standing.place(request)

    def _take_back(self, standing: StandingCrew, *, keep: bool) -> None:
        with self._changed:
            if keep and not self._is_over:
                self._lent.remove(standing)
                self._idle.append(standing)
                self._changed.notify_all()
                return
        try:
            standing.close()
        finally:
            with self._changed:
                self._lent.remove(standing)
                self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._changed:
            self._is_over = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        _close(idle)


def _close(crews: Sequence[StandingCrew]) -> None:
    """End the workers of all these, also when that fails with some."""
    with ExitStack() as stack:
        for standing in crews:
            stack.callback(standing.close)
