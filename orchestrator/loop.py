"""The loop over the steps of a run: with checkpoints on the way, and back to one of them when learners are lost."""

import time
from collections.abc import Callable
from dataclasses import replace

from cluster.worker import WorkerLost
from orchestrator.checkpoints.state import RunState
from orchestrator.clock import PhaseClock
from orchestrator.crew.crew import Crew
from orchestrator.crew.fault_injection import FaultInjection
from orchestrator.run.checkpoints import RunCheckpoints, learner_files
from orchestrator.run.recorder import Recorder
from orchestrator.step import TrainingStep


class TrainingLoop:
    """Runs steps. Rollout workers and the scheduler are brought back by the crew, unnoticed here; for learners the run
    goes back to its newest checkpoint, and does the steps since once more with the same data, seeds and decisions.
    """

    def __init__(  # noqa: PLR0913 - one for each part
        self,
        *,
        step: TrainingStep,
        crew: Crew,
        recorder: Recorder,
        checkpoints: RunCheckpoints,
        faults: FaultInjection,
        mlflow_run_id: Callable[[], str | None],
    ) -> None:
        self._step = step
        self._crew = crew
        self._recorder = recorder
        self._checkpoints = checkpoints
        self._faults = faults
        self._mlflow_run_id = mlflow_run_id
        self._recording_s = 0.0
        # A run that goes on has lines in its metrics file already; its beginning is before the first of them.
        self._origin = replace(self._state(0), weight_version=0, metrics_bytes=0)

    def run(self, start: RunState | None, last: int, at_end: Callable[[], None]) -> None:
        """Run up to step `last`, unless a collapse ends the run earlier.

        Args:
            start: where to begin, the learners being there already; None is before the first step.
            last: number of the last step.
            at_end: what is to be done with the workers afterwards.
        """
        position = self._go_to(start or self._origin)
        while True:
            try:
                self._run_from(position, last)
                at_end()
                return
            except WorkerLost as lost:
                position = self._go_back(lost)

    def _run_from(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            goes_on = self._run_step(step, last)
            self._checkpoints.check()
            if not goes_on:
                break
            if self._checkpoints.due(step, last):
                self._checkpoints.begin(self._state(step + 1))
        self._checkpoints.finish()

    def _run_step(self, step: int, last: int) -> bool:
        ahead = PhaseClock(self._faults.at(step + 1)) if self._samples_ahead(step, last) else None
        done = self._step.step(step, PhaseClock(self._faults.at(step)), ahead)
        # A record cannot contain how long it takes to write itself: it tells of the one before.
        done.metrics["time/record"] = self._recording_s
        self._faults.at(step)("record")
        started = time.perf_counter()
        if step >= self._recorder.steps_ahead:
            self._crew.restarts.progress()
        goes_on = self._recorder.record(done)
        self._recording_s = time.perf_counter() - started
        return goes_on

    def _samples_ahead(self, step: int, last: int) -> bool:
        """Whether the batch after this step may be sampled during it.

        Not across a checkpoint: whoever goes on from there has only the weights after it.
        """
        return self._step.max_staleness > 0 and step < last and not self._checkpoints.due(step, last)

    def _state(self, step: int) -> RunState:
        """Where the run stands before `step`."""
        return RunState(
            step=step,
            weight_version=self._crew.version,
            cursor=self._step.sampler.cursor,
            scheduler=self._crew.scheduler_state(),
            stability=self._recorder.stability_state(),
            mlflow_run_id=self._mlflow_run_id(),
            metrics_bytes=self._recorder.sync(),
            learner_ranks=len(self._crew.learners),
        )

    def _go_back(self, lost: WorkerLost) -> int:
        """Start the learners again where the newest checkpoint stands, and everything else with them."""
        self._step.abandon()
        self._checkpoints.abandon()
        checkpoint = self._checkpoints.newest()
        state = checkpoint.state if checkpoint else self._origin
        self._crew.recover(lost, learner_files(checkpoint), state.weight_version)
        return self._go_to(state)

    def _go_to(self, state: RunState) -> int:
        self._step.sampler.cursor = state.cursor
        self._crew.set_scheduler_state(state.scheduler)
        self._recorder.rewind(state.stability, state.metrics_bytes)
        return state.step
