"""One run of one arm with one seed: the one place that wires everything."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from rich.console import Console
from transformers import AutoTokenizer

from actors.faults import Faults
from actors.learner import Learner
from actors.messages import IntArray, Response, SampleRequest
from actors.rollout_worker import RolloutWorker
from cluster.pool import Pool
from cluster.session import Session
from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.crew import Crew, crew
from orchestrator.loop import TrainingLoop
from orchestrator.model_files import ModelFiles
from orchestrator.progress import Progress
from orchestrator.records import RunCard, StepRecord
from orchestrator.rewards import arithmetic_reward
from orchestrator.run_folder import RunFolder
from orchestrator.sampling import Sampler
from orchestrator.self_test import SelfTest, SelfTestReport
from orchestrator.tasks import ArithmeticTask
from orchestrator.tracking import TrackedRun, Tracker, version_tags

PROBE_TEXT_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Which run.

    Example:
        RunSpec(config=config, model=model, arm="decay", seed=0, folder=Path("runs/demo/decay/seed-0"))
    """

    config: ExperimentConfig
    model: ModelFiles
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
        self._task = ArithmeticTask(digits=spec.config.task.digits, seed=spec.seed)
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
            RunFolder.create(spec.folder, spec.config, spec.seed) as folder,
            Progress(self._console, title, spec.config.steps) as progress,
        ):
            tracked = self._track(tracker, parent)
            status = "FAILED"
            try:
                self._train(folder, progress, tracked)
                status = "FINISHED"
            except KeyboardInterrupt:
                status = "KILLED"
                raise
            finally:
                tracked.end(status)

    def _train(self, folder: RunFolder, progress: Progress, tracked: TrackedRun) -> None:
        spec = self._spec
        progress.say("starting workers")
        with crew(spec.config, spec.model, self._session, spec.faults) as workers:
            self._check_faults(workers)
            report = self.self_test(workers)
            verdict = (
                f"weights arrive: difference {report.perturbed:.2g} (floor {report.floor:.2g}), {report.syncs} syncs"
            )
            progress.say(verdict)
            folder.log.info("self-test passed: %s", report)

            def record(done: StepRecord) -> None:
                folder.write_step(done.step, done.metrics)
                if done.events:
                    folder.log.info("step %d: %s", done.step, ", ".join(done.events))
                tracked.log_step(done)
                progress.show(done)

            self.loop(workers).run(0, spec.config.steps - 1, record)

    def _check_faults(self, workers: Crew) -> None:
        names = workers.learners.first(Learner.tensor_names)
        for pattern in self._spec.faults.without_effect(names):
            close = get_close_matches(pattern, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError("environment", "EVENKEEL_FAULTS", pattern, f"the name of a tensor of this model{hint}")

    def self_test(self, workers: Crew) -> SelfTestReport:
        """The weight-sync self-test on these workers.

        Raises:
            WeightSyncError: weights do not arrive as sent.
        """
        return SelfTest(workers.rollouts, workers.learners, self._probe_text(), workers.engine_shape).run()

    def loop(self, workers: Crew) -> TrainingLoop:
        """The loop over these workers, at step 0."""
        config = self._spec.config
        sampler = Sampler(
            config.rollout,
            self._spec.seed,
            encode=self._encode,
            generate=lambda requests: generate(workers.rollouts, requests),
            score=self._score,
        )
        return TrainingLoop(
            sampler=sampler,
            learners=workers.learners,
            scheduler=workers.scheduler,
            advantage=config.learner.advantage,
            tokens_per_microbatch=config.learner.tokens_per_microbatch,
        )

    def _encode(self, prompt: int) -> IntArray:
        config = self._spec.config.rollout
        ids: list[int] = self._tokenizer(self._task.problem(prompt).prompt, add_special_tokens=False)["input_ids"]
        limit = min(config.max_prompt_tokens, self._spec.model.context_length - config.max_response_tokens)
        if len(ids) > limit:
            raise ConfigError(
                "task",
                f"prompt {prompt}",
                f"{len(ids)} tokens",
                f"at most {limit}: rollout.max_prompt_tokens, and what the model's context leaves beside a response",
            )
        return np.asarray(ids, np.int32)

    def _score(self, prompt: int, responses: Sequence[Response]) -> list[float]:
        answer = self._task.problem(prompt).answer
        texts = self._tokenizer.batch_decode(
            [response.token_ids.tolist() for response in responses], skip_special_tokens=True
        )
        return [arithmetic_reward(text, answer) for text in texts]

    def _probe_text(self) -> IntArray:
        pieces: list[IntArray] = []
        while sum(map(len, pieces)) < PROBE_TEXT_TOKENS:
            pieces.append(self._encode(len(pieces)))
        return np.concatenate(pieces)

    def _track(self, tracker: Tracker, parent: TrackedRun | None) -> TrackedRun:
        spec = self._spec
        card = RunCard(
            experiment=spec.config.tracking.experiment or spec.config.name,
            name=f"{spec.config.name}/{spec.arm}/seed-{spec.seed}",
            tags={"arm": spec.arm, "seed": str(spec.seed), "folder": str(spec.folder), **version_tags()},
            params=spec.config.model_dump(mode="json", exclude={"arms", "seeds", "tracking"}),
        )
        return TrackedRun(tracker, card, parent)


def generate(rollouts: Pool[RolloutWorker], requests: Sequence[SampleRequest]) -> list[tuple[Response, ...]]:
    """Deal requests out over the rollout workers, like cards, and put their responses back in order."""
    num = len(rollouts)
    dealt = rollouts.scatter(RolloutWorker.generate, [list(requests[i::num]) for i in range(num)])
    return [dealt[i % num][i // num] for i in range(len(requests))]
