"""What a run has logged to MLflow, read back as a table of its metrics; nothing is ever written there."""

import logging
import os
import re
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.trace_tables import STEP, TraceTable
from orchestrator.tracking.database_check import check_file

UNKNOWN_RUN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
OTHER_CLOCK = "system/"  # MLflow's own measurements of the machine: their steps count samples
# A server that does not answer is told of within a minute or two; MLflow's own defaults wait for many.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
Histories = dict[str, list[tuple[int, float | None]]]  # (step, value) in any order; None where it is not finite


def tracking_uri(given: str | None, runs: Path, run_id: str) -> str:
    """Where a run is looked for: the URI given, else MLFLOW_TRACKING_URI, else the database among the runs.

    Raises:
        ConfigError: there is none of them, or it is a file or folder that is not there or no database of MLflow's.
    """
    default = runs / "mlflow.db"
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or (f"sqlite:///{default}" if default.is_file() else "")
    if not uri:
        where = f"for a run id, --tracking-uri, MLFLOW_TRACKING_URI or {default} must say where it is kept"
        raise ConfigError(run_id, "", MISSING, f"a file, a run folder or an MLflow run id; {where}")
    parts = urlsplit(uri, allow_fragments=False)
    if parts.scheme.startswith("sqlite"):
        check_file(uri)
    elif (parts.scheme == "file" or uri.startswith((".", "/"))) and not Path(unquote(parts.path)).is_dir():
        raise ConfigError("tracking URI", uri, MISSING, "a folder that is there")
    return uri


def read_history(run_id: str, wanted: Collection[str], uri: str) -> TraceTable:
    """A row per step at which the run logged anything, with the columns `wanted` as far as it has them.

    Raises:
        ConfigError: the store does not answer or does not know the run, or a metric has several values at one step.
    """
    stored = {name.replace("@", "_at_"): name for name in wanted}  # MLflow knows no @
    histories = _histories(run_id, uri)
    keys = [STEP, *(stored.get(key, key) for key in histories)]
    columns = {stored[key]: _by_step(run_id, key, history) for key, history in histories.items() if key in stored}
    steps = sorted({step for history in histories.values() for step, _ in history})
    cells = {name: [column.get(step) for step in steps] for name, column in columns.items()}
    return TraceTable(
        source=_name(run_id), keys=keys, cells={**cells, STEP: steps}, unit="row", numbers=range(len(steps))
    )


def _by_step(run_id: str, key: str, history: Iterable[tuple[int, float | None]]) -> dict[int, float | None]:
    values: dict[int, float | None] = {}
    for step, value in history:
        if values.setdefault(step, value) != value:  # sent twice is well; two values are not
            raise ConfigError(_name(run_id), key, value, f"one value at step {step}, which has {values[step]} already")
    return values


def _histories(run_id: str, uri: str) -> Histories:
    """All metrics of a run but those on another clock."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # noqa: PLC0415 - seconds, which a mistake in what comes before need not wait for
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        client = MlflowClient(tracking_uri=uri)
        keys = [key for key in client.get_run(run_id).data.metrics if not key.startswith(OTHER_CLOCK)]
        return {key: [(m.step, _finite(m.value)) for m in client.get_metric_history(run_id, key)] for key in keys}
    except MlflowException as error:
        if error.error_code in UNKNOWN_RUN:
            raise ConfigError(
                run_id, "", MISSING, f"a file, a run folder or the id of a run in {_shown(uri)}"
            ) from None
        raise _no_answer(uri, error) from None
    except Exception as error:  # a missing driver, an unreachable database: each store has its own
        raise _no_answer(uri, error) from None


def _finite(value: float) -> float | None:
    """MLflow keeps an infinity as the largest float there is."""
    return value if abs(value) < sys.float_info.max else None


def _no_answer(uri: str, error: Exception) -> ConfigError:
    why = _shown(" ".join(str(error).split()))
    return ConfigError("tracking URI", _shown(uri), MISSING, f"a tracking store that answers ({why})")


def _shown(text: str) -> str:
    """Without the passwords of the addresses in it."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _name(run_id: str) -> str:
    return f"MLflow run {run_id}"
