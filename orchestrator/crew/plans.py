"""What a run needs of the cluster, read off its config without loading what will run there."""

from cluster.plan import Bundle, Plan, Seat
from orchestrator.config import ExperimentConfig


def plan_of(config: ExperimentConfig) -> Plan:
    """What the run needs: its rollout workers, then its learner nodes, then the scheduler, who has no GPU.

    Colocated, rollout worker i and learner rank i are one bundle.
    """
    rollout = Seat(role="rollout", cpus=config.rollout.cpus_per_worker, gpus=config.rollout.gpus_per_worker)
    learner = Seat(role="learner", cpus=config.learner.cpus_per_worker, gpus=config.learner.gpus_per_worker)
    scheduler = Bundle(seats=(Seat(role="scheduler", cpus=0.1, gpus=0.0),))
    if config.cluster.colocate:
        together = [Bundle(seats=(rollout, learner))] * config.learner.workers
    else:
        ranks, most = config.learner.workers, config.learner.workers_per_node or 1
        nodes = [min(most, ranks - first) for first in range(0, ranks, most)]
        engines = [Bundle(seats=(rollout,))] * config.rollout.workers
        together = [*engines, *[Bundle(seats=(learner,) * count) for count in nodes]]
    return Plan(bundles=(*together, scheduler), strategy=config.cluster.strategy, name=config.name)
