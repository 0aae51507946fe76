"""Places the workers of a run, and sees to it that they are gone afterwards."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from actors.faults import Faults
from actors.learner import Learner
from actors.rollout_worker import RolloutWorker
from actors.scheduler import Scheduler
from cluster.placement import reserved
from cluster.pool import Pool
from cluster.session import Session
from orchestrator.config import ExperimentConfig
from orchestrator.crew import worker_specs
from orchestrator.crew.crew import Crew
from orchestrator.crew.engines import Engines
from orchestrator.crew.plans import plan_of
from orchestrator.crew.restarts import Restarts, Tell
from orchestrator.crew.staff import learner_staff, rollout_staff
from orchestrator.model_files import ModelFiles
from orchestrator.run.folder import RunFolderFull


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The classes that do the work; others stand in for them in tests.

    Example:
        Roles(rollout=RolloutWorker, learner=Learner, scheduler=Scheduler)
    """

    rollout: type[RolloutWorker] = RolloutWorker
    learner: type[Learner] = Learner
    scheduler: type[Scheduler] = Scheduler


REAL = Roles()


@contextmanager
def workers(  # noqa: PLR0913, PLR0917 - one for each part
    config: ExperimentConfig,
    model: ModelFiles,
    session: Session,
    faults: Faults,
    tell: Tell = lambda lost, remedy: None,
    roles: Roles = REAL,
) -> Iterator[Crew]:
    """Place all workers of a run, who are gone after the with-block; `Crew.start` brings them up.

    Raises:
        PlacementError: the cluster has no room.
    """
    patience = worker_specs.patience_of(config)
    with ExitStack() as stack:
        place = stack.enter_context(scratch(session))
        slots = stack.enter_context(reserved(plan_of(config), config.cluster.placement_timeout_s))
        sampling = rollout_staff(config, model, faults, roles.rollout)
        learning = learner_staff(config, model, faults, roles.learner)
        rollouts = Pool(
            sampling.worker,
            slots["rollout"],
            sampling.arguments,
            env=worker_specs.rollout_env(config, model, session, place),
            patience=patience,
            per_process=sampling.per_process,
            title=config.name,
        )
        stack.callback(rollouts.close)
        learners = Pool(
            learning.worker,
            slots["learner"],
            learning.arguments,
            env=worker_specs.learner_env(config, session, place),
            patience=patience,
            per_process=learning.per_process,
            title=config.name,
        )
        stack.callback(learners.close)
        arguments = worker_specs.scheduler_arguments(config)
        scheduler = Pool(roles.scheduler, slots["scheduler"], [arguments], env={}, patience=patience, title=config.name)
        stack.callback(scheduler.close)
        yield Crew(
            rollouts=rollouts,
            learners=learners,
            scheduler=scheduler,
            restarts=Restarts(config.cluster.restarts, tell),
            colocated=config.cluster.colocate and config.rollout.device == "cuda",
            transfer_heals=config.rollout.device == "cpu",
        )


@contextmanager
def scratch(session: Session, prefix: str = "workers-") -> Iterator[str]:
    """A folder for what workers keep for a while; theirs alone.

    Raises:
        RunFolderFull: there is no room for any.
    """
    try:
        folder = TemporaryDirectory(prefix=prefix, dir=session.scratch, ignore_cleanup_errors=True)
    except OSError as error:
        raise RunFolderFull(Path(gettempdir()), error) from error
    with folder as path:
        yield path


@contextmanager
def engines(config: ExperimentConfig, model: ModelFiles, session: Session, tell: Tell) -> Iterator[Engines]:
    """The rollout workers alone, with the weights as they are in the model's files.

    Raises:
        PlacementError: the cluster has no room.
        WorkerLost: a worker died while starting.
    """
    with ExitStack() as stack:
        place = stack.enter_context(scratch(session))
        plan = plan_of(config).only("rollout")
        slots = stack.enter_context(reserved(plan, config.cluster.placement_timeout_s))
        sampling = rollout_staff(config, model, Faults())
        rollouts = Pool(
            sampling.worker,
            slots["rollout"],
            sampling.arguments,
            env=worker_specs.rollout_env(config, model, session, place),
            patience=worker_specs.patience_of(config),
            per_process=sampling.per_process,
            title=config.name,
        )
        stack.callback(rollouts.close)
        alone = Engines(rollouts, Restarts(config.cluster.restarts, tell), lambda: None)
        with alone.coming_up():
            pass
        yield alone
