"""What Evenkeel asks of an MLflow tracking server; every call waits for it and may fail."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from orchestrator.records import StepRecord

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table it makes
# Limits of MLflow's batch call.
PARAMS_PER_CALL, METRICS_PER_CALL, LONGEST_PARAM = 100, 1000, 6000


class MlflowStore:
    """A tracking server, or a database file that stands in for one."""

    def __init__(self, uri: str, artifacts: Path | None) -> None:
        """Connect.

        Args:
            uri: MLflow tracking URI.
            artifacts: folder below which new experiments keep their files; None leaves that to the server.
        """
        self._client = MlflowClient(tracking_uri=uri)
        self._artifacts = artifacts

    def create_run(self, experiment: str, name: str, tags: Mapping[str, str], parent_id: str | None) -> str:
        """A new run, in an experiment that is made if need be; returns its id."""
        known = self._client.get_experiment_by_name(experiment)
        experiment_id = known.experiment_id if known else self._create_experiment(experiment)
        nested = {"mlflow.parentRunId": parent_id} if parent_id else {}
        run_id: str = self._client.create_run(experiment_id, run_name=name, tags={**tags, **nested}).info.run_id
        return run_id

    def _create_experiment(self, name: str) -> str:
        location = (self._artifacts / "mlartifacts" / name).as_uri() if self._artifacts else None
        created: str = self._client.create_experiment(name, artifact_location=location)
        return created

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Parameters under dotted keys; nested mappings are flattened."""
        rows = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in flatten(params).items()]
        for start in range(0, len(rows), PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=rows[start : start + PARAMS_PER_CALL])

    def log_steps(self, run_id: str, records: Sequence[StepRecord]) -> None:
        """The metrics of several steps, in as few calls as MLflow allows; it knows no @, so avg@8 is avg_at_8 there."""
        rows = [
            Metric(key.replace("@", "_at_"), value, record.time_ms, record.step)
            for record in records
            for key, value in record.metrics.items()
        ]
        for start in range(0, len(rows), METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=rows[start : start + METRICS_PER_CALL])

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Add tags, or change them."""
        for key, value in tags.items():
            self._client.set_tag(run_id, key, value)

    def log_artifact(self, run_id: str, path: Path) -> None:
        """A copy of a file."""
        self._client.log_artifact(run_id, str(path))

    def log_folder(self, run_id: str, path: Path) -> None:
        """A copy of a folder."""
        self._client.log_artifacts(run_id, str(path), artifact_path=path.name)

    def end_run(self, run_id: str, status: str) -> None:
        """Close a run as FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run_id, status=status)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys.

    Example:
        >>> flatten({"rollout": {"workers": 2}, "steps": 10})
        {'rollout.workers': 2, 'steps': 10}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat
