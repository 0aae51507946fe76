"""What Evenkeel asks of an MLflow tracking server; every call waits for it, may fail and may be made again."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from orchestrator.records import RunCard, StepRecord
from orchestrator.tracking.database import make_database
from orchestrator.tracking.refusals import Refused, one_line
from orchestrator.tracking.step_batches import METRICS_PER_CALL, step_batches

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table it makes
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # and, at length, of every error it raises
# Limits of MLflow's batch call.
PARAMS_PER_CALL, TAGS_PER_CALL, LONGEST_PARAM = 100, 100, 6000
EVERY_STEP = "scheduler/lr"  # the metric that every step has
UID, PARENT, RESUMED = "evenkeel.uid", "mlflow.parentRunId", "resumed."  # tags


class MlflowStore:
    """A tracking server, or a database file that stands in for one."""

    def __init__(self, uri: str, artifacts: Path | None) -> None:
        """Connect.

        Args:
            uri: MLflow tracking URI.
            artifacts: folder below which new experiments keep their files; None leaves that to the server.
        """
        make_database(uri)
        self._client = MlflowClient(tracking_uri=uri)
        self._artifacts = artifacts

    def open_run(self, card: RunCard, parent_id: str | None) -> str:
        """The run with the card's uid, running from now on, made if there is none; returns its id."""
        tags = {**card.tags, UID: card.uid}
        found = self._find_run(card)
        if found is None:
            made = self.create_run(card.experiment, card.name, tags, parent_id)
            return self._find_run(card) or made  # what passes requests on may have made this one twice
        self._client.update_run(found, status="RUNNING")
        self.set_tags(found, {**tags, **_nested(parent_id)})
        return found

    def create_run(self, experiment: str, name: str, tags: Mapping[str, str], parent_id: str | None) -> str:
        """A new run, in an experiment that is made if need be; returns its id."""
        experiment_id = self._find_experiment(experiment) or self._create_experiment(experiment)
        tags = {**tags, **_nested(parent_id)}
        run_id: str = self._client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
        return run_id

    def _find_experiment(self, name: str) -> str | None:
        known = self._client.get_experiment_by_name(name)
        return known.experiment_id if known else None

    def _create_experiment(self, name: str) -> str:
        location = (self._artifacts / "mlartifacts" / name).as_uri() if self._artifacts else None
        try:
            created: str = self._client.create_experiment(name, artifact_location=location)
        except MlflowException:
            if found := self._find_experiment(name):  # made by another process, or by a try that seemed to fail
                return found
            raise
        return created

    def _find_run(self, card: RunCard) -> str | None:
        """The run with the card's uid; of several the one in use, the others are deleted if they are empty."""
        experiment_id = self._find_experiment(card.experiment)
        if experiment_id is None:
            return None
        having = f"tags.`{UID}` = '{card.uid}'"
        found = self._client.search_runs([experiment_id], having, order_by=["attributes.start_time ASC"])
        runs = sorted(found, key=lambda run: not run.data.metrics)
        for other in runs[1:]:
            if not other.data.metrics:
                self._client.delete_run(other.info.run_id)
        return runs[0].info.run_id if runs else None

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Parameters under dotted keys; nested mappings are flattened.

        MLflow never changes a parameter: one that the run has with another value is kept as tag `resumed.<key>`.
        """
        data = self._client.get_run(run_id).data
        texts = {key: str(value)[:LONGEST_PARAM] for key, value in flatten(params).items()}
        rows = [Param(key, text) for key, text in texts.items() if key not in data.params]
        for start in range(0, len(rows), PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=rows[start : start + PARAMS_PER_CALL])
        self.set_tags(
            run_id,
            {
                f"{RESUMED}{key}": text
                for key, text in texts.items()
                if text != data.tags.get(f"{RESUMED}{key}", data.params.get(key, text))
            },
        )

    def log_steps(self, run_id: str, records: Sequence[StepRecord]) -> None:
        """The metrics of several steps, in few calls; MLflow knows no @, so avg@8 is avg_at_8 there.

        A call holds whole steps. MLflow's databases keep it wholly or not at all, and keep the same point (key, step,
        time, value) once. Of a step that is too long for a call `EVERY_STEP` comes last.
        """
        for batch in step_batches(records):
            rows = [
                Metric(key.replace("@", "_at_"), record.metrics[key], record.time_ms, record.step)
                for record in batch
                for key in sorted(record.metrics, key=EVERY_STEP.__eq__)
            ]
            for start in range(0, len(rows), METRICS_PER_CALL):
                self._client.log_batch(run_id, metrics=rows[start : start + METRICS_PER_CALL])

    def steps(self, run_id: str) -> set[int]:
        """The steps that are there, by the metric that every step has."""
        return {point.step for point in self._client.get_metric_history(run_id, EVERY_STEP)}

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Add tags, or change them."""
        rows = [RunTag(key, value) for key, value in tags.items()]
        for start in range(0, len(rows), TAGS_PER_CALL):
            self._client.log_batch(run_id, tags=rows[start : start + TAGS_PER_CALL])

    def log_artifact(self, run_id: str, path: Path) -> None:
        """A copy of a file."""
        with self._uploading():
            self._client.log_artifact(run_id, str(path))

    def log_folder(self, run_id: str, path: Path) -> None:
        """A copy of a folder."""
        with self._uploading():
            self._client.log_artifacts(run_id, str(path), artifact_path=path.name)

    def end_run(self, run_id: str, status: str) -> None:
        """Close a run as FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run_id, status=status)

    @contextmanager
    def _uploading(self) -> Iterator[None]:
        """Files are kept elsewhere than metrics: when that place alone fails, the metrics shall not wait for it."""
        try:
            yield
        except Exception as error:
            self._client.search_experiments(max_results=1)  # fails when the server is away, too
            raise Refused(one_line(error)) from error


def _nested(parent_id: str | None) -> dict[str, str]:
    return {PARENT: parent_id} if parent_id else {}


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
