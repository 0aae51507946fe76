"""A folder in an object store: files in it are written and read whole, and nothing in it can be renamed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from actors.messages import SavedFile

if TYPE_CHECKING:
    # Who only names such a folder, as most commands do, need not wait for it.
    from pyarrow.fs import FileInfo, FileSystem

BLOCK_BYTES = 8 << 20
SERVER_COPY_BYTES = 5 << 30  # S3 copies no larger object in one go
GCS_PATIENCE_S = "60"  # its own default is 15 minutes


class StorageError(RuntimeError):
    """An object store cannot be used: `reason` says why. A file that is not there is a FileNotFoundError instead."""

    disk_full = False  # as a checkpoint that was not written tells it

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place} cannot be used: {reason}")
        self.place, self.reason = place, reason

    def __reduce__(self) -> tuple[type["StorageError"], tuple[str, str]]:
        return StorageError, (self.place, self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file as a listing shows it.

    Example:
        StoredFile(num_bytes=7340032, mtime_ns=1767225600000000000)
    """

    num_bytes: int
    mtime_ns: int  # of its last writing, since 1970


class RemoteFolder:
    """A folder, or a file, by URI. Its query says where the store is, as in pyarrow: `region`, `endpoint_override`.

    folder = RemoteFolder("s3://bucket/checkpoints?region=eu-west-1") / "demo"
    (folder / "state.json").write_bytes(content)
    folder.files()                              # {"state.json": StoredFile(...)}

    Credentials are those of the environment. All methods raise StorageError; those that read, FileNotFoundError, too.
    """

    def __init__(self, uri: str) -> None:
        """Define it; nothing is looked up."""
        self._parts = urlsplit(uri)._replace(fragment="")

    def __truediv__(self, name: str) -> "RemoteFolder":
        return RemoteFolder(urlunsplit(self._parts._replace(path=f"{self._parts.path.rstrip('/')}/{name}")))

    def __str__(self) -> str:
        return urlunsplit(self._parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteFolder) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self._parts.path.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> "RemoteFolder":
        """The folder that it is in."""
        return RemoteFolder(urlunsplit(self._parts._replace(path=self._parts.path.rstrip("/").rpartition("/")[0])))

    @property
    def without_query(self) -> str:
        """What is stored where, wherever the store may be reached today."""
        return urlunsplit(self._parts._replace(query=""))

    def files(self) -> dict[str, StoredFile]:
        """All files below it by name with /; none where there is no such folder."""
        from pyarrow.fs import FileSelector  # noqa: PLC0415 - as above

        with self._using() as (store, path):
            found: list[FileInfo] = store.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
        return {
            info.path[len(path) + 1 :]: StoredFile(num_bytes=info.size, mtime_ns=info.mtime_ns or 0)
            for info in found
            if info.is_file
        }

    def read_bytes(self) -> bytes:
        """The content of this file."""
        with self._using() as (store, path), store.open_input_stream(path) as file:
            return bytes(file.read())

    def write_bytes(self, content: bytes) -> None:
        """Write this file."""
        with self._using() as (store, path), store.open_output_stream(path) as file:
            file.write(content)

    def upload(self, source: Path, name: str) -> SavedFile:
        """Write this file from a local one; the digest is that of the bytes that were sent.

        Args:
            source: to read.
            name: for the answer.
        """
        digest, num_bytes = sha256(), 0
        with source.open("rb") as local, self._using() as (store, path), store.open_output_stream(path) as file:
            for block in _blocks(local):
                file.write(block)
                digest.update(block)
                num_bytes += len(block)
        return SavedFile(name=name, num_bytes=num_bytes, sha256=digest.hexdigest())

    def download(self, target: Path, name: str) -> SavedFile:
        """This file as it came, every byte of it written to a local one; OSError when the disk refuses.

        Args:
            target: to write.
            name: for the answer.
        """
        digest, num_bytes = sha256(), 0
        with target.open("wb") as file:
            for block in self.blocks():
                file.write(block)
                digest.update(block)
                num_bytes += len(block)
        return SavedFile(name=name, num_bytes=num_bytes, sha256=digest.hexdigest())

    def blocks(self) -> Iterator[bytes]:
        """The content of this file, piece by piece."""
        with self._using() as (store, path):
            file = store.open_input_stream(path)
        with file:
            while True:
                with self._using():
                    block = bytes(file.read(BLOCK_BYTES))
                if not block:
                    return
                yield block

    def copy_to(self, target: "RemoteFolder") -> None:
        """Have this file there, too; the store copies it itself where it can."""
        with self._using() as (store, path), target._using() as (other, place):
            if store is other and store.get_file_info(path).size < SERVER_COPY_BYTES:
                store.copy_file(path, place)
                return
            with other.open_output_stream(place) as file:
                for block in self.blocks():
                    file.write(block)

    def delete_file(self) -> None:
        """Delete this file, if it is there."""
        with self._using() as (store, path):
            if store.get_file_info(path).is_file:
                store.delete_file(path)

    def delete(self) -> None:
        """Delete all files below it, if there are any."""
        from pyarrow.fs import FileType  # noqa: PLC0415

        with self._using() as (store, path):
            if store.get_file_info(path).type == FileType.Directory:
                store.delete_dir(path)

    @contextmanager
    def _using(self) -> "Iterator[tuple[FileSystem, str]]":
        """The store and the path in it; what the store raises becomes a StorageError."""
        from pyarrow import ArrowException  # noqa: PLC0415

        try:
            store, bucket = _store(self._parts.scheme, self._parts.netloc, self._parts.query)
            yield store, f"{bucket}{unquote(self._parts.path)}".rstrip("/")
        except FileNotFoundError:
            raise
        except (OSError, ArrowException) as error:
            raise StorageError(str(self), " ".join(str(error).split())) from error


def is_remote(place: str) -> bool:
    """Whether text is the URI of an object store; else it is a path."""
    return place.startswith(("s3://", "gs://"))


@lru_cache
def _store(scheme: str, bucket: str, query: str) -> "tuple[FileSystem, str]":
    """The store of a bucket, and what its paths begin with."""
    from pyarrow.fs import FileSystem  # noqa: PLC0415

    options = dict(parse_qsl(query, keep_blank_values=True))
    if scheme == "gs":
        options.setdefault("retry_limit_seconds", GCS_PATIENCE_S)
    found: tuple[FileSystem, str] = FileSystem.from_uri(urlunsplit((scheme, bucket, "", urlencode(options), "")))
    return found


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        yield block
