"""One run of one arm with one seed: the one place that wires everything."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from difflib import get_close_matches
from typing import Any

from rich.console import Console
from transformers import AutoTokenizer

from actors.learner import Learner
from cluster.application_metrics import ApplicationMetrics
from cluster.worker import WorkerLost
from orchestrator.checkpoints.checkpoint import Checkpoint
from orchestrator.checkpoints.fingerprint import check_same
from orchestrator.config_errors import ConfigError
from orchestrator.crew.crew import Crew
from orchestrator.crew.crews import Crews
from orchestrator.crew.fault_injection import FaultInjection, check_strikes
from orchestrator.crew.standing import CrewRequest
from orchestrator.evaluation import TRAIN, Evaluation
from orchestrator.loop import TrainingLoop
from orchestrator.problem_set import ProblemSet
from orchestrator.records import RunCard, StepRecord
from orchestrator.rollout_log import RolloutLog
from orchestrator.rollout_writer import RolloutWriter
from orchestrator.run.checkpoints import RunCheckpoints, check_room, learner_files
from orchestrator.run.folder import MODEL, ROLLOUTS, RunFolder
from orchestrator.run.log import RunLog
from orchestrator.run.progress import Progress
from orchestrator.run.recorder import Recorder, verdict_tags
from orchestrator.run_spec import RunSpec
from orchestrator.sampling import Sampler
from orchestrator.self_test import SelfTest, SelfTestReport
from orchestrator.step import TrainingStep
from orchestrator.task_problems import TaskProblems, task_problems
from orchestrator.tracking.tracker import TrackedRun, Tracker, origin_tags

PROBE_TEXT_TOKENS = 1024


class Experiment:
    """Builds the parts of a run, hands them to the loop, and records what comes out."""

    def __init__(self, spec: RunSpec, crews: Crews, console: Console) -> None:
        """Prepare a run; nothing is started and nothing written yet.

        Args:
            spec: which run.
            crews: lends the workers.
            console: the screen; runs in several threads may share one if they are quiet.
        """
        self._spec = spec
        self._crews = crews
        self._console = console
        self._tokenizer = AutoTokenizer.from_pretrained(spec.model.path)

    def run(self, tracker: Tracker, parent: TrackedRun | None = None) -> None:
        """Train to the last step, or until a collapse or the watch ends the run; in any thread.

        Metrics reach the run's folder first, then MLflow, then the watch.

        Args:
            tracker: the connection to MLflow.
            parent: the comparison this run belongs to.

        Raises:
            PlacementError, WorkerLost, WeightSyncError: as the workers' start, the steps and the self-test find them.
            RestartsExhausted: workers were lost too often.
            DiskTooSmall, RunFolderFull, CheckpointFailed: the disk is too small, or refuses.
            Whatever the watch raises.
        """
        spec = self._spec
        check_strikes(spec.faults.strikes, spec.config)
        if not spec.resume:  # else when it is clear that it is not over
            check_room(spec.folder, spec.config.checkpoint, spec.model.path, resume=False)
        title = f"{spec.arm} seed {spec.seed}"
        opened = RunFolder.reopen if spec.resume else RunFolder.create
        with (
            self.problems() as problems,
            opened(spec.folder, spec.config, spec.seed) as folder,
            Progress(self._console, title, spec.config.steps, quiet=spec.quiet) as progress,
        ):
            tracked = self._track(tracker, parent, folder.status.uid)
            status = "FAILED"
            try:
                self._go_on(problems, folder, progress, tracked)
                status = "FINISHED"
            except KeyboardInterrupt:
                status = "KILLED"
                raise
            finally:
                if spec.watch is not None:
                    tracked.set_tags(spec.watch.closing_tags())
                tracked.end(status)
                folder.note_mlflow_run(tracked.known_id)

    def _go_on(self, problems: TaskProblems, folder: RunFolder, progress: Progress, tracked: TrackedRun) -> None:
        recorded = list(folder.metrics.rows())
        if recorded:
            tracked.backfill(lambda: recorded)
        if folder.is_over:
            progress.say(f"is over already, with {len(recorded)} steps; MLflow gets what it lacks")
            self._show_watch(recorded)
            tracked.set_tags(verdict_tags(folder.read_verdict()))
            self._show_model(tracked)
            return
        spec = self._spec
        recorder = Recorder(
            folder,
            tracked,
            progress,
            spec.config.stability,
            len(recorded),
            watch=spec.watch,
            gauges=None if self._crews.are_private else ApplicationMetrics(spec.config.name, spec.arm, spec.seed),
        )
        if recorder.review(recorded):
            self._train(problems, folder, progress, tracked, recorder)
        folder.end = recorder.end

    def _show_watch(self, recorded: Sequence[StepRecord]) -> None:
        """Have it see the steps of a run that is over, up to where it would have ended the run."""
        watch = self._spec.watch
        if watch is not None:
            all(watch.see(record) for record in recorded)

    def problems(self) -> AbstractContextManager[TaskProblems]:
        """The problems of the run, with the processes that score its responses.

        Raises:
            ConfigError: the template or the reward cannot be used.
        """
        return _problems(self._spec, self._tokenizer)

    def _train(
        self, problems: TaskProblems, folder: RunFolder, progress: Progress, tracked: TrackedRun, recorder: Recorder
    ) -> None:
        spec = self._spec
        told = RunLog(progress, folder.log)
        checkpoints = RunCheckpoints(spec.config.checkpoint, folder, told)
        found = checkpoints.newest() if spec.resume else None
        if found is not None:
            check_same(found.config, folder.config, str(spec.folder))
        if spec.resume:
            check_room(spec.folder, spec.config.checkpoint, spec.model.path, resume=True)
        told.say(f"goes on with step {found.state.step}, from {found.path}" if found else "waits for workers")
        request = CrewRequest(
            config=spec.config,
            model=spec.model,
            faults=spec.faults,
            tell=told.lost,
            roles=spec.roles,
            checkpoint=learner_files(found),
            version=found.state.weight_version if found else 0,
        )
        with self._crews.lend(request) as (crew, is_fresh):
            if is_fresh:
                self._prove(crew, problems.training, found, told)
            else:
                told.say("has the workers of an earlier run, where weights are known to arrive")
            with self._rollout_log(folder, told, problems) as rollout_log, checkpoints.written_by(crew):
                loop = TrainingLoop(
                    step=self.step(crew, problems, rollout_log),
                    crew=crew,
                    recorder=recorder,
                    checkpoints=checkpoints,
                    faults=FaultInjection(spec.faults.strikes, crew),
                    mlflow_run_id=lambda: tracked.known_id,
                )
                loop.run(found.state if found else None, spec.config.steps - 1, lambda: self._export(crew, tracked))
        recorder.conclude()

    def _prove(self, crew: Crew, training: ProblemSet, found: Checkpoint | None, told: RunLog) -> None:
        """Show that weights arrive, before the first step; whoever is lost meanwhile is brought back."""
        while True:
            try:
                self._check_faults(crew)
                report = self.self_test(crew, training)
                seen = f"difference {report.perturbed:.2g} (floor {report.floor:.2g}), {report.syncs} syncs"
                told.say(f"weights arrive: {seen}")
                return
            except WorkerLost as lost:
                crew.recover(lost, learner_files(found), crew.version)

    def _check_faults(self, crew: Crew) -> None:
        names = crew.learners.first(Learner.tensor_names)
        for pattern in self._spec.faults.without_effect(names):
            close = get_close_matches(pattern, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError("environment", "EVENKEEL_FAULTS", pattern, f"the name of a tensor of this model{hint}")

    def self_test(self, crew: Crew, training: ProblemSet) -> SelfTestReport:
        """The weight-sync self-test on these workers, on prompts of the training problems.

        Raises:
            WeightSyncError: weights do not arrive as sent.
        """
        if self._spec.config.rollout.quantize is not None:
            # the engines have loaded the weights as they are in the file
            crew.learners.broadcast(Learner.publish, crew.version)
        text = training.text(PROBE_TEXT_TOKENS)
        return SelfTest(crew.rollouts, crew.learners, text, crew.engines.shape, crew.version).run()

    def step(self, crew: Crew, problems: TaskProblems, rollout_log: RolloutLog | None = None) -> TrainingStep:
        """A step on these workers, before the first prompt."""
        config, seed = self._spec.config, self._spec.seed
        evaluation = None
        if config.evaluation is not None:
            evaluation = Evaluation(config.evaluation, config.steps - 1, seed, problems.evaluation, crew.generate)
        return TrainingStep(
            sampler=Sampler(config.rollout, seed, problems.training, crew.generate),
            workers=crew,
            num_learners=config.learner.workers,
            evaluation=evaluation,
            rollout_log=rollout_log,
            config=config.learner,
            max_staleness=config.max_staleness,
        )

    @contextmanager
    def _rollout_log(self, folder: RunFolder, told: RunLog, problems: TaskProblems) -> Iterator[RolloutLog | None]:
        config = self._spec.config.record_rollouts
        if config is None:
            yield None
            return
        with RolloutWriter(folder.path / ROLLOUTS, told.warn) as writer:
            yield RolloutLog(config, writer, self._tokenizer, {TRAIN: problems.training, **problems.evaluation})

    def _export(self, crew: Crew, tracked: TrackedRun) -> None:
        config = self._spec.config.export
        if config is None:
            return
        folder = (self._spec.folder / MODEL).resolve()
        crew.learners.broadcast(Learner.export, str(folder), config.dtype)
        self._show_model(tracked)

    def _show_model(self, tracked: TrackedRun) -> None:
        """Have MLflow keep the exported model, if it shall."""
        config, folder = self._spec.config.export, (self._spec.folder / MODEL).resolve()
        if config is not None and config.mlflow and folder.is_dir():
            tracked.log_folder(folder)

    def _track(self, tracker: Tracker, parent: TrackedRun | None, uid: str) -> TrackedRun:
        spec = self._spec
        card = RunCard(
            uid=uid,
            experiment=spec.config.tracking.experiment or spec.config.name,
            name=f"{spec.config.name}/{spec.arm}/seed-{spec.seed}",
            tags={"arm": spec.arm, "seed": str(spec.seed), "folder": str(spec.folder), **origin_tags(), **spec.tags},
            params=spec.config.model_dump(mode="json", exclude={"arms", "seeds", "tracking"}),
        )
        return TrackedRun(tracker, card, parent)


def check_problems(spec: RunSpec) -> None:
    """Make the problems of a run as it will, so that what it cannot use is refused before anything is started.

    Raises:
        ConfigError: template or reward cannot be used, or all prompts are too long.
    """
    evaluation = spec.config.evaluation
    with _problems(spec, AutoTokenizer.from_pretrained(spec.model.path)) as problems:
        problems.training.draw(0)
        if evaluation is not None:
            for problem_set in problems.evaluation.values():
                problem_set.first(evaluation.problems)


def _problems(spec: RunSpec, tokenizer: Any) -> AbstractContextManager[TaskProblems]:
    return task_problems(spec.config, spec.task, tokenizer, spec.seed, spec.model.context_length)
