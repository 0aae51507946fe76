"""The workers of one run as a step sees them: what it asks of each role, and what is done when one is lost."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from actors.learner import Learner
from actors.messages import (
    GradientReport,
    LearnerShard,
    Response,
    SampleRequest,
    SavedFile,
    StepDecision,
    TokenRecord,
    UpdateReport,
)
from actors.rollout_worker import RolloutWorker
from actors.scheduler import Scheduler
from cluster.pool import Pool
from cluster.worker import WorkerLost
from orchestrator.crew.engines import Engines
from orchestrator.crew.restarts import Restarts

SAVE_TIMEOUT_S = 3600.0  # for the files of one checkpoint to be on the disk; a learner says when that is over
ANSWER_S = 60.0  # for it to say so


class Crew:
    """Rollout workers, learners and the scheduler.

    A lost rollout worker or scheduler is replaced here and asked again; whoever called does not notice. A lost learner
    takes the weights of its gang with it: that is raised as WorkerLost, and `recover` starts the gang anew.
    """

    def __init__(  # noqa: PLR0913 - one for each part
        self,
        *,
        rollouts: Pool[RolloutWorker],
        learners: Pool[Learner],
        scheduler: Pool[Scheduler],
        restarts: Restarts,
        colocated: bool = False,
        transfer_heals: bool = True,
    ) -> None:
        """Take over workers that have been placed; `start` brings them up.

        Args:
            rollouts: the engines.
            learners: the gang.
            scheduler: a pool of one.
            restarts: how many losses are borne.
            colocated: each engine shares its GPU with a learner, and they take turns.
            transfer_heals: learners and engines get over a loss while weights are sent. Over NCCL and CUDA IPC they do
                not: those that are left wait for ever.
        """
        self.engines = Engines(rollouts, restarts, self._refresh)
        self.rollouts = rollouts
        self.learners = learners
        self.scheduler = scheduler
        self.restarts = restarts
        self._colocated = colocated
        self._transfer_heals = transfer_heals
        self._version = 0
        self._scheduler_state: dict[str, Any] | None = None

    def start(self, checkpoint: str | None = None, version: int = 0) -> None:
        """Bring all workers up and connect them.

        Args:
            checkpoint: folder of the learners' files to go on from; their weights are then sent to the engines. None
                starts from the model, which engines and learners have read.
            version: of those weights.
        """
        self._bring_up(None, checkpoint, version, engines_differ=checkpoint is not None)

    def renew(self, scheduler: tuple[Any, ...], restarts: Restarts, files: str | None, version: int) -> None:
        """Serve another run, all workers being up: as if they had just been started for it.

        Args:
            scheduler: arguments of the constructor of its scheduler, which is a fresh one.
            restarts: how many losses it bears.
            files: folder of the learners' files that it begins from. None begins at the model: the learners start anew.
            version: of the weights that it begins from.
        """
        self.restarts = self.engines.restarts = restarts
        self.scheduler.rebuild([scheduler])
        self._scheduler_state = None
        if files is None:
            self.learners.respawn(range(len(self.learners)))
            self._bring_up(None, None, version, engines_differ=True)
            return
        self._version = version
        try:
            self.learners.broadcast(Learner.load, files)
            self._send()
        except WorkerLost as lost:
            self._bring_up(lost, files, version)

    def recover(self, lost: WorkerLost, checkpoint: str | None, version: int) -> None:
        """Go on after a loss that no call could make good: the whole gang anew, and its weights sent to the engines."""
        self._bring_up(lost, checkpoint, version)

    @property
    def version(self) -> int:
        """Of the weights that all engines have."""
        return self._version

    # What a step asks for, in its order.

    def generate(self, requests: Sequence[SampleRequest]) -> list[tuple[Response, ...]]:
        """Responses to requests, in their order."""
        return self.engines.generate(requests)

    def compute_gradients(self, shards: Sequence[LearnerShard]) -> list[GradientReport]:
        """Each rank's report on its shard."""
        if self._colocated:
            self.engines.sleep()
        return self.learners.scatter(Learner.compute_gradients, shards)

    def token_records(self) -> list[list[list[TokenRecord]]]:
        """What each rank kept of its shard's tokens, by micro-batch."""
        return self.learners.broadcast(Learner.token_records)

    def decide(
        self, step: int, reports: Sequence[GradientReport], metrics: dict[str, float], num_prompts: int
    ) -> StepDecision:
        """The central scheduler's decision on a step."""
        while True:
            try:
                deciding = self.scheduler.begin(Scheduler.decide, step, reports, metrics, num_prompts)
                saving = self.scheduler.begin(Scheduler.state_dict)  # asked for at once: one way to and fro, not two
                made, state = deciding()[0], saving()[0]
            except WorkerLost as lost:
                self._replace_scheduler(lost)
            else:
                self._scheduler_state = state
                return made

    def apply(self, order: StepDecision) -> list[UpdateReport]:
        """Have the learners do as the scheduler has decided."""
        return self.learners.broadcast(Learner.apply, order)

    def publish(self) -> None:
        """Bring the learners' weights to all engines, as the next version."""
        self._version += 1
        try:
            self._send()
        except WorkerLost as lost:
            if lost.worker not in self.rollouts.names:
                raise
            self.engines.replace([lost])

    # What a checkpoint holds of the workers.

    def save(self, folder: str) -> None:
        """Have the learners write their state to a folder; they go on working meanwhile."""
        self.learners.broadcast(Learner.save, folder)

    def written(self) -> list[SavedFile]:
        """Wait, beside all other calls, for what `save` has begun."""
        by_rank = self.learners.aside(Learner.written, SAVE_TIMEOUT_S, call_s=SAVE_TIMEOUT_S + ANSWER_S)
        return [file for files in by_rank for file in files]

    def scheduler_state(self) -> dict[str, Any]:
        """All that the scheduler's later decisions depend on."""
        while self._scheduler_state is None:
            try:
                self._scheduler_state = self.scheduler.first(Scheduler.state_dict)
            except WorkerLost as lost:
                self._replace_scheduler(lost)
        return self._scheduler_state

    def set_scheduler_state(self, state: dict[str, Any]) -> None:
        """Set the scheduler back to where it was."""
        self._scheduler_state = state
        try:
            self.scheduler.first(Scheduler.load_state_dict, state)
        except WorkerLost as lost:
            self._replace_scheduler(lost)

    # Bringing workers up and back.

    def _bring_up(
        self, lost: WorkerLost | None, checkpoint: str | None, version: int, *, engines_differ: bool = True
    ) -> None:
        """Bring up all who are down; `engines_differ`: the engines have other weights than the learners will."""
        self._version = version
        while True:
            if lost is not None:
                self.restarts.spend(lost, f"{_again(lost)} from {checkpoint or 'the model'}")
                self.learners.respawn(range(len(self.learners)))
                self.engines.note_lost([lost])
            try:
                self._start(checkpoint)
                self._connect()
                if engines_differ:
                    self._send()
                return
            except WorkerLost as again:
                lost = again

    def _start(self, checkpoint: str | None) -> None:
        if not self._colocated:
            with self.engines.coming_up():
                self._start_gang(checkpoint)
            return
        # One after the other: an engine takes the share of its GPU that is free when it starts.
        with self.engines.coming_up():
            pass
        self.engines.pool.broadcast(RolloutWorker.sleep)
        self._start_gang(checkpoint)

    def _start_gang(self, checkpoint: str | None) -> None:
        address = self.learners.first(Learner.open_rendezvous, self.learners.hosts()[0])
        self.learners.broadcast(Learner.start, address)
        if checkpoint is not None:
            self.learners.broadcast(Learner.load, checkpoint)

    def _refresh(self) -> None:
        self._connect()
        self._send()

    def _connect(self) -> None:
        host = self.learners.hosts()[0]
        with self._transfer():
            self.learners.needing(self.rollouts).broadcast(Learner.connect, host, self.rollouts.handles)

    def _send(self) -> None:
        with self._transfer():
            self.learners.needing(self.rollouts).broadcast(Learner.publish, self._version)

    @contextmanager
    def _transfer(self) -> Iterator[None]:
        """Where the transfer does not heal, whoever is lost in it takes all others along: they wait for each other."""
        try:
            yield
        except WorkerLost as lost:
            if self._transfer_heals:
                raise
            self.engines.abandon()
            if lost.worker in self.learners.names:
                raise
            reason = f"{lost.worker} was lost while it received weights"
            raise WorkerLost(self.learners.names[0], lost.method, reason) from lost

    def _replace_scheduler(self, lost: WorkerLost) -> None:
        while True:
            self.restarts.spend(lost, "it starts again from its last recorded state")
            try:
                self.scheduler.respawn([0])
                if self._scheduler_state is not None:
                    self.scheduler.first(Scheduler.load_state_dict, self._scheduler_state)
                return
            except WorkerLost as again:
                lost = again


def _again(lost: WorkerLost) -> str:
    return "the learners start again" if lost.role == "learner" else "it starts again, and the learners"
