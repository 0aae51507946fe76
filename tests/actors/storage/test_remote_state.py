"""A learner's checkpoint in an object store: real FSDP2 ranks save it, and any number of them goes on from it."""

import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from learner_ranks import SPEC, Call, batch, play_on_two_ranks, save, shard_of, state_of, train
from s3_server import S3, s3_server
from torch import Tensor

from actors.config import OptimizerConfig
from actors.learner import Learner
from actors.messages import SavedFile
from actors.storage.remote_folder import RemoteFolder
from actors.storage.remote_state import MANIFEST, RemoteState
from actors.storage.scratch import PREFIX
from actors.storage.writer import CheckpointNotWritten
from orchestrator.batching import shard_batch
from orchestrator.checkpoints.manifest import DIGEST, Manifest

pytestmark = pytest.mark.slow

ADAMW = {"optimizer": OptimizerConfig(weight_decay=0.01)}
GOOD, REFUSED = "step-000040-5e884898", "step-000041-9f86d081"


class Saved(NamedTuple):
    """What two ranks did, each of them."""

    s3: S3
    folder: RemoteFolder  # of the good one, with a manifest
    state: RemoteState
    files: list[tuple[SavedFile, ...]]
    states: list[dict[str, Tensor]]
    refusals: list[CheckpointNotWritten]


@pytest.fixture(scope="module")
def saved() -> Iterator[Saved]:
    """Two ranks try to save where the store refuses the second one's file, and then where it does not."""
    with s3_server() as s3:
        s3.refused = f"P.*{REFUSED}/learner/__1_0"
        calls: list[list[Call]] = [
            [
                (train, shard, 2),
                (state_of,),
                (save, s3.uri(f"{REFUSED}/learner")),
                (save, s3.uri(f"{GOOD}/learner")),
            ]
            for shard in shard_batch(batch(), 2, 60, halves=False, whole_groups=True)
        ]
        answers = play_on_two_ranks(SPEC.config.model_copy(update=ADAMW), *calls)
        folder = RemoteFolder(s3.uri(GOOD))
        files = [answer[3] for answer in answers]
        manifest, digest = Manifest(fingerprint="", files=tuple(file for of in files for file in of)).contents()
        (folder / DIGEST).write_bytes(digest)
        (folder / MANIFEST).write_bytes(manifest)
        state = RemoteState(folder=folder / "learner", manifest_sha256=digest[:64].decode())
        yield Saved(s3, folder, state, files, [answer[1] for answer in answers], [answer[2] for answer in answers])


def test_the_store_has_what_each_rank_tells_of_its_files(saved: Saved) -> None:
    assert [[file.name for file in files] for files in saved.files] == [
        ["learner/__0_0.distcp", "learner/.metadata"],
        ["learner/__1_0.distcp"],
    ]
    Manifest.read_verified(saved.folder)


def test_where_one_rank_s_file_does_not_arrive_every_rank_says_so(saved: Saved) -> None:
    for refusal in saved.refusals:
        assert refusal.reason.startswith(saved.s3.uri(f"{REFUSED}/learner"))
        assert ": rank 1: " in refusal.reason and "ACCESS_DENIED" in refusal.reason
        assert not refusal.disk_full
    assert "learner/.metadata" not in RemoteFolder(saved.s3.uri(REFUSED)).files()


def test_one_rank_goes_on_from_the_checkpoint_of_two_and_leaves_no_scratch(
    saved: Saved, build: Callable[..., Learner]
) -> None:
    learner = build(**ADAMW)
    before = scratch_folders()
    learner.load(str(saved.state))
    state = state_of(learner)
    assert state.keys() | {"random/rank-1"} == saved.states[0].keys() | {"random/rank-1"}
    assert all(torch.equal(state[name], tensor) for name, tensor in saved.states[0].items())
    train(learner, shard_of(batch()))
    assert scratch_folders() <= before


def scratch_folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


class Evil:
    """What unpickling it does is to make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_nothing_is_unpickled_that_is_not_what_the_manifest_says(
    saved: Saved, build: Callable[..., Learner], tmp_path: Path
) -> None:
    learner = build(**ADAMW)
    objects = saved.s3.objects
    metadata, shard, manifest = (f"{GOOD}/{name}" for name in ("learner/.metadata", "learner/__1_0.distcp", MANIFEST))
    whole = dict(objects)
    try:
        objects[metadata] = pickle.dumps(Evil(tmp_path / "run"))
        with pytest.raises(RuntimeError, match=r"\.metadata: is not what the manifest says"):
            learner.load(str(saved.state))
        objects[manifest] = whole[manifest].replace(b"0", b"1")  # by whoever has put the other there
        with pytest.raises(RuntimeError, match=r"manifest\.json: its content has changed"):
            learner.load(str(saved.state))
        objects.update(whole)
        objects[shard] = whole[shard][:-1] + bytes([whole[shard][-1] ^ 1])
        with pytest.raises(RuntimeError, match=r"__1_0\.distcp: is not what the manifest says"):
            learner.load(str(saved.state))
        del objects[shard]
        with pytest.raises(RuntimeError, match=r"__1_0\.distcp: is not what the manifest says"):
            learner.load(str(saved.state))
    finally:
        objects.update(whole)
    assert not (tmp_path / "run").exists()
    learner.load(str(saved.state))
