"""A crew that serves one run after the other: its workers stay up, its scheduler changes with the run."""

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from actors.faults import Faults
from actors.storage.writer import CheckpointNotWritten
from cluster.session import Session
from cluster.worker import WorkerLost
from orchestrator import disk
from orchestrator.config import ExperimentConfig
from orchestrator.crew import worker_specs
from orchestrator.crew.crew import Crew
from orchestrator.crew.plans import plan_of
from orchestrator.crew.restarts import Restarts, Tell
from orchestrator.crew.workers import REAL, Roles, scratch, workers
from orchestrator.model_files import ModelFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewRequest:
    """What a run wants of its workers.

    Example:
        CrewRequest(config=config, model=model, checkpoint="/runs/demo/decay/seed-0/checkpoints/step-000040/learner",
                    version=40)
    """

    config: ExperimentConfig
    model: ModelFiles
    faults: Faults = field(default_factory=Faults)
    tell: Tell = lambda lost, remedy: None  # gets every loss that is borne
    roles: Roles = REAL  # the classes that do the work
    checkpoint: str | None = None  # folder of the learners' files to begin from; None is the model
    version: int = 0  # of those weights


class StandingCrew:
    """Brought up for one run, and then set to what others begin with.

    standing = StandingCrew(request, session)
    crew = standing.place(request)
    crew.start()
    standing.save_origin(request)
    crew = standing.renew(other_request)        # as if it had just been started for that
    standing.close()
    """

    def __init__(self, request: CrewRequest, session: Session) -> None:
        """Define a crew; nothing is placed."""
        self.plan = plan_of(request.config)
        self._started_with = request.roles, *worker_specs.started_with(request.config, request.model, session)
        self._session = session
        self._stack = ExitStack()
        self._crew: Crew
        self._origin: str | None = None  # folder with the learners' untouched state, once it was saved

    def is_like(self, other: "StandingCrew") -> bool:
        """Whether the workers of both are started with the same, so that either can serve the other's run."""
        return self._started_with == other._started_with

    def place(self, request: CrewRequest) -> Crew:
        """Place the workers; `Crew.start` brings them up.

        Raises:
            PlacementError, RunFolderFull: as `workers`; it may be tried again.
        """
        of = request
        placed = workers(of.config, of.model, self._session, of.faults, of.tell, of.roles)
        self._crew = self._stack.enter_context(placed)
        return self._crew

    def renew(self, request: CrewRequest) -> Crew:
        """The same crew, for another run. Errors as `Crew.renew`."""
        config = request.config
        restarts = Restarts(config.cluster.restarts, request.tell)
        files = request.checkpoint or self._origin
        self._crew.renew(worker_specs.scheduler_arguments(config), restarts, files, request.version)
        return self._crew

    def save_origin(self, request: CrewRequest) -> None:
        """Save the learners' state, which no run has changed yet, for later runs that begin at the model.

        It is as large as the model in float32. Where it cannot be saved, the learners start anew for such a run.
        """
        if self._origin is not None or self._session.scratch is None:  # None: nodes of a cluster share no such folder
            return
        folder = self._stack.enter_context(scratch(self._session, "origin-"))
        files = f"{folder}/learner"
        try:
            disk.check_room(Path(folder), disk.checkpoint_bytes(request.model.path) or 0)
            self._crew.save(files)
            self._crew.written()
            self._origin = files
        except (disk.DiskTooSmall, CheckpointNotWritten, WorkerLost):  # who is lost is missed by the next call
            shutil.rmtree(files, ignore_errors=True)

    def close(self) -> None:
        """End the workers; nobody uses them."""
        self._stack.close()
