"""Which failures of a call to MLflow are an answer that no further try will change, and how a failure reads."""

import re

# MLflow's error codes (mlflow.protos.databricks_pb2.ErrorCode) for a request that is wrong in itself. All others, its
# INTERNAL_ERROR for a connection that failed among them, may be answered otherwise later.
FINAL = frozenset(
    (
        "ALREADY_EXISTS",
        "CUSTOMER_UNAUTHORIZED",
        "FEATURE_DISABLED",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "INVALID_STATE_TRANSITION",
        "MALFORMED_REQUEST",
        "NOT_FOUND",
        "NOT_IMPLEMENTED",
        "PERMISSION_DENIED",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
        "UNAUTHENTICATED",
    )
)
# A row that does not fit the database, but an exhausted connection pool and a lost race as well.
DOUBTFUL, TRIES_IN_DOUBT = "BAD_REQUEST", 4
# What a missing file, a missing driver or a mistake in the request raises on this side.
MISTAKES = (
    AttributeError,
    FileNotFoundError,
    ImportError,
    IsADirectoryError,
    LookupError,
    NotADirectoryError,
    PermissionError,
    TypeError,
    ValueError,
)


class Refused(Exception):
    """A request failed for good, for the reason that its text gives."""


def is_refusal(error: Exception, tries: int) -> bool:
    """Whether the same request would fail again, after it has failed `tries` times.

    Example:
        >>> is_refusal(ConnectionError("no route"), tries=1000), is_refusal(FileNotFoundError("figure.png"), tries=1)
        (False, True)
    """
    code = getattr(error, "error_code", None)
    if code is None:
        return isinstance(error, (Refused, *MISTAKES))
    return code in FINAL or (code == DOUBTFUL and tries >= TRIES_IN_DOUBT)


def one_line(error: Exception) -> str:
    """Kind and first line of an error, without the passwords of the addresses in it."""
    first = next(iter(str(error).strip().splitlines()), "")
    return without_passwords(first if isinstance(error, Refused) else f"{type(error).__name__}: {first}")


def without_passwords(text: str) -> str:
    """A text with its addresses, but not who logs in there.

    Example:
        >>> without_passwords("http://me:secret@host/api")
        'http://host/api'
    """
    return re.sub(r"//[^/@\s]*@", "//", text)
