"""Whether a database is one of MLflow's, found out by reading: connecting as MLflow does would make what is missing."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.tracking.refusals import without_passwords

FIELD = "tracking URI"
ANY_RUN = "SELECT run_uuid FROM runs LIMIT 1"
CONNECT_TIMEOUT_S = 10
# What MLflow's stores can be kept in (mlflow.store.db.db_types), as the URI begins.
FILES, SERVERS = ("sqlite",), ("postgresql", "mysql", "mssql")


def check_database(uri: str) -> None:
    """Pass if `uri` is the SQLAlchemy URL of a database with MLflow's tables in it.

    Raises:
        ConfigError: it is no such URL, the file is not there, the server does not answer, or the tables are missing.
    """
    kind = urlsplit(uri).scheme.partition("+")[0]
    if kind in FILES:
        check_file(uri)
    elif kind in SERVERS:
        _check_server(uri)
    else:
        kinds = ", ".join((*FILES, *SERVERS))
        raise ConfigError(FIELD, without_passwords(uri), MISSING, f"the address of a database ({kinds})")


def check_file(uri: str) -> None:
    """The same for a sqlite file, without SQLAlchemy."""
    path = Path(urlsplit(uri, allow_fragments=False).path.removeprefix("/"))
    if not path.is_file():
        raise ConfigError(FIELD, uri, MISSING, "a database file that is there")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            database.execute(ANY_RUN)
    except sqlite3.Error as error:
        raise ConfigError(FIELD, uri, MISSING, f"a database of MLflow's ({error})") from None


def _check_server(uri: str) -> None:
    import sqlalchemy  # noqa: PLC0415 - a third of a second, for databases on a server only

    patience = {} if uri.startswith("mssql") else {"connect_timeout": CONNECT_TIMEOUT_S}
    try:
        engine = sqlalchemy.create_engine(uri, connect_args=patience)
        with closing(engine.connect()) as connection:
            connection.execute(sqlalchemy.text(ANY_RUN))
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:  # among them: no driver installed
        first = without_passwords(" ".join(str(error).partition("\n")[0].split()))
        shown = without_passwords(uri)
        raise ConfigError(FIELD, shown, MISSING, f"a database of MLflow's that answers ({first})") from None
