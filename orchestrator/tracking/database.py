"""Making MLflow's sqlite file so that it is there whole or not at all."""

import os
from pathlib import Path
from uuid import uuid4

from mlflow import MlflowClient
from sqlalchemy.engine import make_url


def make_database(uri: str) -> None:
    """Make the sqlite file that `uri` names, unless it is there; any other URI is left alone.

    MLflow makes its tables one after the other in a second or two, and cannot go on with a file in which that was
    broken off: every later run would find no tracking. So they are made beside it, in a file that is then renamed.
    """
    url = make_url(uri) if uri.startswith("sqlite") else None
    if url is None or not url.database or url.database.startswith((":memory:", "file:")):
        return
    path = Path(url.database)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{uuid4().hex}.new")
    try:
        MlflowClient(tracking_uri=url.set(database=str(beside)).render_as_string(hide_password=False))
        _name(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _name(made: Path, path: Path) -> None:
    """Give a file its name, unless another process was quicker."""
    try:
        os.link(made, path)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        made.rename(path)
