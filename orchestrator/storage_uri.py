"""Where an experiment file may want its checkpoints: what such a place looks like, without going there."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

REMOTE = ("s3", "gs")
EXPECTED = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, file:///FOLDER or the absolute path of a folder"
SECRETS = "no user or password in it: credentials come from the environment"


def local_folder(storage: str) -> Path | None:
    """The folder that a place is, on a disk or a mount; None for an object store.

    >>> local_folder("file:///shared/checkpoints"), local_folder("s3://bucket/checkpoints")
    (PosixPath('/shared/checkpoints'), None)
    """
    parts = urlsplit(storage)
    if parts.scheme in REMOTE:
        return None
    return Path(unquote(parts.path) if parts.scheme == "file" else storage)


def mistake_in(storage: str) -> str | None:
    """What is expected in place of it; None when it will do.

    >>> mistake_in("s3://bucket/checkpoints?region=eu-west-1")
    >>> mistake_in("s3://key:secret@bucket")
    'no user or password in it: credentials come from the environment'
    """
    try:
        parts = urlsplit(storage)
    except ValueError:
        return EXPECTED
    if parts.scheme in REMOTE:
        user, _, bucket = parts.netloc.rpartition("@")
        if user and (parts.scheme, user) != ("gs", "anonymous"):
            return SECRETS
        return None if bucket and not parts.fragment else EXPECTED
    if parts.scheme == "file":
        return None if not parts.netloc and parts.path.startswith("/") and not parts.query else EXPECTED
    return None if not parts.scheme and storage.startswith("/") else EXPECTED
