"""One run of one arm with one seed: the one place that wires everything."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import AutoTokenizer

from actors.faults import Faults
from actors.learner import Learner
from actors.messages import Response, SampleRequest
from actors.rollout_worker import RolloutWorker
from cluster.pool import Pool
from cluster.session import Session
from orchestrator.config import ExperimentConfig, ExportConfig
from orchestrator.config_errors import ConfigError
from orchestrator.crew import Crew, crew
from orchestrator.evaluation import TRAIN, Evaluation
from orchestrator.loop import TrainingLoop
from orchestrator.model_files import ModelFiles
from orchestrator.problem_set import ProblemSet
from orchestrator.progress import Progress
from orchestrator.recorder import Recorder
from orchestrator.records import RunCard
from orchestrator.rollout_log import RolloutLog
from orchestrator.rollout_writer import RolloutWriter
from orchestrator.run_folder import MODEL, ROLLOUTS, RunFolder
from orchestrator.sampling import Sampler
from orchestrator.self_test import SelfTest, SelfTestReport
from orchestrator.task_problems import TaskFiles, TaskProblems, task_problems
from orchestrator.tracking import TrackedRun, Tracker, version_tags

PROBE_TEXT_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Which run.

    Example:
        RunSpec(config=config, model=model, task=TaskFiles.open(config, "demo.yaml"), arm="decay", seed=0,
                folder=Path("runs/demo/decay/seed-0"))
    """

    config: ExperimentConfig
    model: ModelFiles
    task: TaskFiles
    arm: str
    seed: int
    folder: Path
    faults: Faults = field(default_factory=Faults)


class Experiment:
    """Builds the parts of a run, hands them to the loop, and records what comes out."""

    def __init__(self, spec: RunSpec, session: Session, console: Console) -> None:
        """Prepare a run; nothing is started and nothing written yet."""
        self._spec = spec
        self._session = session
        self._console = console
        self._tokenizer = AutoTokenizer.from_pretrained(spec.model.path)

    def run(self, tracker: Tracker, parent: TrackedRun | None = None) -> None:
        """Train to the last step. Metrics reach the run's folder first, MLflow afterwards.

        Args:
            tracker: the connection to MLflow.
            parent: the comparison this run belongs to.

        Raises:
            PlacementError, WorkerLost, WeightSyncError: as the workers' start, the steps and the self-test find them.
        """
        spec = self._spec
        title = f"{spec.arm} seed {spec.seed}"
        with (
            self.problems() as problems,
            RunFolder.create(spec.folder, spec.config, spec.seed) as folder,
            Progress(self._console, title, spec.config.steps) as progress,
        ):
            tracked = self._track(tracker, parent)
            status = "FAILED"
            try:
                self._train(problems, folder, progress, tracked)
                status = "FINISHED"
            except KeyboardInterrupt:
                status = "KILLED"
                raise
            finally:
                tracked.end(status)

    def problems(self) -> AbstractContextManager[TaskProblems]:
        """The problems of the run, with the processes that score its responses.

        Raises:
            ConfigError: the template or the reward cannot be used.
        """
        return _problems(self._spec, self._tokenizer)

    def _train(self, problems: TaskProblems, folder: RunFolder, progress: Progress, tracked: TrackedRun) -> None:
        spec = self._spec
        progress.say("starting workers")
        with crew(spec.config, spec.model, self._session, spec.faults) as workers:
            self._check_faults(workers)
            report = self.self_test(workers, problems.training)
            verdict = (
                f"weights arrive: difference {report.perturbed:.2g} (floor {report.floor:.2g}), {report.syncs} syncs"
            )
            progress.say(verdict)
            folder.log.info("self-test passed: %s", report)

            recorder = Recorder(folder, tracked, progress, spec.config.stability)
            with self._rollout_log(folder, progress, problems) as rollout_log:
                loop = self.loop(workers, problems, rollout_log)
                loop.run(0, spec.config.steps - 1, recorder.record)
            recorder.conclude()
            if spec.config.export is not None:
                self._export(spec.config.export, workers, tracked)

    def _check_faults(self, workers: Crew) -> None:
        names = workers.learners.first(Learner.tensor_names)
        for pattern in self._spec.faults.without_effect(names):
            close = get_close_matches(pattern, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError("environment", "EVENKEEL_FAULTS", pattern, f"the name of a tensor of this model{hint}")

    def self_test(self, workers: Crew, training: ProblemSet) -> SelfTestReport:
        """The weight-sync self-test on these workers, on prompts of the training problems.

        Raises:
            WeightSyncError: weights do not arrive as sent.
        """
        if self._spec.config.rollout.quantize is not None:
            # the engines have loaded the weights as they are in the file
            workers.learners.broadcast(Learner.publish, 0)
        text = training.text(PROBE_TEXT_TOKENS)
        return SelfTest(workers.rollouts, workers.learners, text, workers.engine_shape).run()

    def loop(self, workers: Crew, problems: TaskProblems, rollout_log: RolloutLog | None = None) -> TrainingLoop:
        """The loop over these workers, at step 0."""
        config, seed = self._spec.config, self._spec.seed

        def sample(requests: Sequence[SampleRequest]) -> list[tuple[Response, ...]]:
            return generate(workers.rollouts, requests)

        evaluation = None
        if config.evaluation is not None:
            last = config.steps - 1
            evaluation = Evaluation(config.evaluation, last, seed, problems.evaluation, sample)
        return TrainingLoop(
            sampler=Sampler(config.rollout, seed, problems.training, sample),
            learners=workers.learners,
            scheduler=workers.scheduler,
            evaluation=evaluation,
            rollout_log=rollout_log,
            config=config.learner,
        )

    @contextmanager
    def _rollout_log(
        self, folder: RunFolder, progress: Progress, problems: TaskProblems
    ) -> Iterator[RolloutLog | None]:
        config = self._spec.config.record_rollouts
        if config is None:
            yield None
            return

        def warn(text: str) -> None:
            progress.say(f"warning: {text}")
            folder.log.warning("%s", text)

        with RolloutWriter(folder.path / ROLLOUTS, warn) as writer:
            yield RolloutLog(config, writer, self._tokenizer, {TRAIN: problems.training, **problems.evaluation})

    def _export(self, config: ExportConfig, workers: Crew, tracked: TrackedRun) -> None:
        folder = (self._spec.folder / MODEL).resolve()
        workers.learners.broadcast(Learner.export, str(folder), config.dtype)
        if config.mlflow:
            tracked.log_folder(folder)

    def _track(self, tracker: Tracker, parent: TrackedRun | None) -> TrackedRun:
        spec = self._spec
        card = RunCard(
            experiment=spec.config.tracking.experiment or spec.config.name,
            name=f"{spec.config.name}/{spec.arm}/seed-{spec.seed}",
            tags={"arm": spec.arm, "seed": str(spec.seed), "folder": str(spec.folder), **version_tags()},
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


def generate(rollouts: Pool[RolloutWorker], requests: Sequence[SampleRequest]) -> list[tuple[Response, ...]]:
    """Deal requests out over the rollout workers, like cards, and put their responses back in order."""
    num = len(rollouts)
    dealt = rollouts.scatter(RolloutWorker.generate, [list(requests[i::num]) for i in range(num)])
    return [dealt[i % num][i // num] for i in range(len(requests))]
