"""Which files a checkpoint's folder holds, with size and SHA-256, and whether it still holds exactly those."""

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from actors.messages import SavedFile
from actors.storage import remote_state
from actors.storage.remote_folder import RemoteFolder

FORMAT = 1  # of the folder: another one is not read
MANIFEST, DIGEST = remote_state.MANIFEST, "manifest.sha256"
BLOCK_BYTES = 1 << 20
THREADS = 4  # files that are hashed side by side
LINE = re.compile(rb"[0-9a-f]{64}  manifest\.json\n")  # as sha256sum writes it


class CheckpointDamaged(ValueError):
    """A checkpoint's folder does not hold what was written; says which file, and what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The contents of a checkpoint's folder. It does not name itself: `manifest.sha256` does.

    Example:
        Manifest(fingerprint="5e884898da280471...",
                 files=(SavedFile(name="state.json", num_bytes=812, sha256="9f86d081884c7d65..."),))
    """

    fingerprint: str  # of the run's config
    files: tuple[SavedFile, ...]

    def write(self, folder: Path) -> None:
        """Write it and its digest."""
        (folder / MANIFEST).write_bytes(self.contents()[0])
        (folder / DIGEST).write_bytes(self.contents()[1])

    def contents(self) -> tuple[bytes, bytes]:
        """What `manifest.json` and `manifest.sha256` hold."""
        files = [asdict(file) for file in self.files]
        content = json.dumps({"format": FORMAT, "fingerprint": self.fingerprint, "files": files}, indent=1) + "\n"
        return content.encode(), _digest_line(content.encode())

    @classmethod
    def read_verified(cls, folder: Path | RemoteFolder) -> "Manifest":
        """The manifest of a folder in which every byte is as it was written.

        Raises:
            CheckpointDamaged: it is not.
            StorageError: the object store that it is in cannot be used.
        """
        manifest = cls._read(folder)
        check_sizes(sizes_below(folder), manifest.files)
        with ThreadPoolExecutor(THREADS) as threads:
            for _ in threads.map(lambda file: _check_content(folder, file), manifest.files):
                pass
        return manifest

    @classmethod
    def _read(cls, folder: Path | RemoteFolder) -> "Manifest":
        with _readable(DIGEST):
            line = (folder / DIGEST).read_bytes()
        with _readable(MANIFEST):
            content = (folder / MANIFEST).read_bytes()
        if not LINE.fullmatch(line):
            raise CheckpointDamaged(f"{DIGEST}: is not the SHA-256 of {MANIFEST} in one line")
        if line != _digest_line(content):
            raise CheckpointDamaged(f"{MANIFEST}: its content has changed (sha256)")
        try:
            tree = json.loads(content)
            if (number := tree["format"]) != FORMAT:
                raise CheckpointDamaged(f"{MANIFEST}: format {number}, this version reads {FORMAT}")
            return cls(fingerprint=tree["fingerprint"], files=tuple(SavedFile(**file) for file in tree["files"]))
        except (LookupError, TypeError, json.JSONDecodeError):  # by another hand, which has made it a digest, too
            raise CheckpointDamaged(f"{MANIFEST}: is no manifest") from None


def check_sizes(sizes: Mapping[str, int], files: Collection[SavedFile]) -> None:
    """Whether a folder holds exactly these files, with these sizes, whatever the manifest and its digest are.

    Args:
        sizes: what it holds, as `sizes_below` says.
        files: what it should.

    Raises:
        CheckpointDamaged: a file is missing, too short or too long, or one is there that was not named.
    """
    for file in files:
        num_bytes = sizes.get(file.name)
        if num_bytes is None:
            raise CheckpointDamaged(f"{file.name}: is missing")
        if num_bytes != file.num_bytes:
            raise CheckpointDamaged(f"{file.name}: {num_bytes:,} bytes instead of {file.num_bytes:,}")
    for name in sizes.keys() - {MANIFEST, DIGEST, *(file.name for file in files)}:
        raise CheckpointDamaged(f"{name}: is no part of the checkpoint")


def sizes_below(folder: Path | RemoteFolder) -> dict[str, int]:
    """Bytes of every file in a folder and those below it, by name with /; one that vanishes meanwhile is left out."""
    if isinstance(folder, RemoteFolder):
        return {name: file.num_bytes for name, file in folder.files().items()}
    sizes = {}
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(parent, name)
            try:
                sizes[path.relative_to(folder).as_posix()] = path.lstat().st_size
            except FileNotFoundError:
                continue
    return sizes


def saved_file(folder: Path | RemoteFolder, name: str) -> SavedFile:
    """A file as it is.

    Raises:
        CheckpointDamaged: it cannot be read.
    """
    if isinstance(folder, RemoteFolder):
        with _readable(name):
            return _digested(name, (folder / name).blocks())
    digest, num_bytes = sha256(), 0
    block = memoryview(bytearray(BLOCK_BYTES))
    with _readable(name), (folder / name).open("rb", buffering=0) as file:
        while length := file.readinto(block):
            digest.update(block[:length])  # lets other threads work: hashlib holds no lock on blocks like these
            num_bytes += length
    return SavedFile(name=name, num_bytes=num_bytes, sha256=digest.hexdigest())


def content_as_saved(name: str, content: bytes) -> SavedFile:
    """A file that holds this."""
    return _digested(name, [content])


def _digested(name: str, blocks: Iterable[bytes]) -> SavedFile:
    digest, num_bytes = sha256(), 0
    for block in blocks:
        digest.update(block)
        num_bytes += len(block)
    return SavedFile(name=name, num_bytes=num_bytes, sha256=digest.hexdigest())


def _check_content(folder: Path | RemoteFolder, file: SavedFile) -> None:
    if saved_file(folder, file.name) != file:
        raise CheckpointDamaged(f"{file.name}: its content has changed (sha256)")


def _digest_line(content: bytes) -> bytes:
    return f"{sha256(content).hexdigest()}  {MANIFEST}\n".encode()


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise CheckpointDamaged(f"{name}: is missing") from None
    except OSError as error:
        raise CheckpointDamaged(f"{name}: cannot be read ({error.strerror})") from None
