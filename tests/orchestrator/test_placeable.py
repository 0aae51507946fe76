"""Numbers of workers and GPUs that no cluster could place are refused by field."""

from pathlib import Path
from typing import Any

import pytest
from experiment_files import resolved

from orchestrator.config_errors import ConfigError

SHARE = {"gpus_per_worker": 0.5}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cluster": {"colocate": True}},
        {"learner": {"workers": 4, "workers_per_node": 2}},
        {"rollout": {"gpus_per_worker": 1, "workers": 3}, "learner": {"gpus_per_worker": 1}},
        {"rollout": {"gpus_per_worker": 4, "tensor_parallel_size": 4}, "learner": {"gpus_per_worker": 1}},
        {"rollout": SHARE, "learner": SHARE, "cluster": {"colocate": True}},
    ],
)
def test_what_can_be_placed_is_accepted(tmp_path: Path, changes: dict[str, Any]) -> None:
    resolved(tmp_path / "e.yaml", changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rollout": {"gpus_per_worker": 1}}, "learner.gpus_per_worker: expected GPUs for the rollout workers and the"),
        (
            {"rollout": {"tensor_parallel_size": 2}},
            "rollout.gpus_per_worker: expected the GPUs that an engine is split",
        ),
        ({"rollout": SHARE, "learner": SHARE}, "rollout.gpus_per_worker: got 0.5, expected 1, or a share"),
        (
            {"rollout": {"gpus_per_worker": 1}, "learner": {"gpus_per_worker": 2}},
            "learner.gpus_per_worker: got 2, expected 1 for each rank",
        ),
        (
            {"rollout": {"workers": 2}, "learner": {"workers": 1}, "cluster": {"colocate": True}},
            "learner.workers: got 1, expected as many as rollout.workers with cluster.colocate: 2",
        ),
        (
            {"rollout": SHARE, "learner": {"gpus_per_worker": 0.6}, "cluster": {"colocate": True}},
            "learner.gpus_per_worker: got 0.6, expected a share of one GPU with cluster.colocate",
        ),
        (
            {"learner": {"workers_per_node": 1}, "cluster": {"colocate": True}},
            "learner.workers_per_node: got 1, expected null with cluster.colocate",
        ),
        ({"cluster": {"strategy": "pack"}}, "cluster.strategy: got 'pack', expected "),
    ],
)
def test_what_cannot_be_placed_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        resolved(tmp_path / "e.yaml", changes)
    assert told in str(refused.value)
