"""Which numbers of workers and of GPUs go together."""

from actors.config import LearnerConfig, RolloutConfig
from cluster.config import ClusterConfig
from orchestrator.config_errors import FieldRule


def check_placeable(rollout: RolloutConfig, learner: LearnerConfig, cluster: ClusterConfig) -> None:
    """Refuse workers that no cluster can place as they ask.

    Raises:
        FieldRule: with the field and what was expected.
    """
    if rollout.device != learner.device:
        raise FieldRule("learner.gpus_per_worker", "GPUs for the rollout workers and the learners, or for neither")
    split = rollout.tensor_parallel_size
    if split > 1 and rollout.gpus_per_worker != split:
        raise FieldRule("rollout.gpus_per_worker", f"the GPUs that an engine is split over: {split}")
    if cluster.colocate:
        _check_pairs(rollout, learner)
    elif rollout.device == "cuda":
        if rollout.gpus_per_worker != split:
            raise FieldRule("rollout.gpus_per_worker", f"{split}, or a share of a GPU with cluster.colocate")
        if learner.gpus_per_worker != 1:
            raise FieldRule("learner.gpus_per_worker", "1 for each rank, or a share of a GPU with cluster.colocate")


def _check_pairs(rollout: RolloutConfig, learner: LearnerConfig) -> None:
    """Rollout worker i and learner rank i share a GPU."""
    if rollout.workers != learner.workers:
        raise FieldRule("learner.workers", f"as many as rollout.workers with cluster.colocate: {rollout.workers}")
    if rollout.tensor_parallel_size > 1:
        raise FieldRule("rollout.tensor_parallel_size", "1 with cluster.colocate: an engine and a rank share one GPU")
    if rollout.gpus_per_worker + learner.gpus_per_worker > 1:
        raise FieldRule(
            "learner.gpus_per_worker", "a share of one GPU with cluster.colocate, rollout.gpus_per_worker the rest"
        )
    if learner.workers_per_node is not None:
        raise FieldRule("learner.workers_per_node", "null with cluster.colocate")
