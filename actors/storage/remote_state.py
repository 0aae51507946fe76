"""What learners are told of a checkpoint in an object store: where it is, and the digest that all of it hangs on."""

import json
from dataclasses import dataclass
from hashlib import sha256

from actors.messages import SavedFile
from actors.storage.remote_folder import RemoteFolder

MANIFEST = "manifest.json"  # beside the learners' folder
MARK = "#sha256="


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteState:
    """The learners' folder of a checkpoint that was verified, as text that learners are given.

    >>> str(RemoteState.parse("s3://bucket/demo/step-000040-5e884898/learner#sha256=9f86d0").folder)
    's3://bucket/demo/step-000040-5e884898/learner'
    """

    folder: RemoteFolder
    manifest_sha256: str

    @classmethod
    def parse(cls, text: str) -> "RemoteState":
        """What `__str__` wrote."""
        uri, _, digest = text.partition(MARK)
        return cls(folder=RemoteFolder(uri), manifest_sha256=digest)

    def __str__(self) -> str:
        return f"{self.folder}{MARK}{self.manifest_sha256}"

    def files(self) -> dict[str, SavedFile]:
        """What the checkpoint's files have to be, by name.

        Raises:
            RuntimeError: the manifest is another one than the driver has verified.
        """
        content = (self.folder.parent / MANIFEST).read_bytes()
        if sha256(content).hexdigest() != self.manifest_sha256:
            raise RuntimeError(f"{self.folder.parent}: {MANIFEST}: its content has changed (sha256)")
        return {file["name"]: SavedFile(**file) for file in json.loads(content)["files"]}
