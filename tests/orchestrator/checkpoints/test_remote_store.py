"""Checkpoints in an object store: one counts once its manifest is there, and only while every byte is as written."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3, s3_server

from actors.messages import SavedFile
from actors.storage.remote_folder import RemoteFolder, StorageError
from orchestrator.checkpoints.manifest import CheckpointDamaged, content_as_saved
from orchestrator.checkpoints.remote_store import RemoteStore
from orchestrator.checkpoints.state import RunState
from orchestrator.checkpoints.store import CheckpointStore
from orchestrator.checkpoints.writer import CheckpointFailed, CheckpointWriter

PREFIX = "checkpoints/demo/"
ORDER = ["learner/__0_0.distcp", "learner/.metadata", "state.json", "config.yaml", "manifest.sha256", "manifest.json"]
State = Callable[..., RunState]
Write = Callable[..., RemoteFolder]
Told = list[tuple[str, str]]


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as s3:
        yield s3


@pytest.fixture
def s3(server: S3) -> S3:
    """Empty."""
    server.objects.clear()
    server.refused = None
    return server


@pytest.fixture
def remote(s3: S3) -> RemoteStore:
    return RemoteStore(RemoteFolder(s3.uri(PREFIX)), keep=2)


def upload(folder: RemoteFolder, seed: int = 0) -> list[SavedFile]:
    """What learners would write, and say of it."""
    contents = {f"learner/{name}": f"{name} {seed}".encode() * 9 for name in ("__0_0.distcp", ".metadata")}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [content_as_saved(name, content) for name, content in contents.items()]


@pytest.fixture
def put(make_state: State, config: dict[str, Any]) -> Write:
    """Writes the checkpoint of a step: (store, step, cursor) -> its folder."""

    def write(store: RemoteStore, step: int, cursor: int = 0) -> RemoteFolder:
        files = upload(store.begin(step), cursor)
        return store.commit(make_state(step, cursor), config, files)

    return write


def newest(store: RemoteStore, before: int | None = None) -> tuple[RunState | None, Told]:
    told: Told = []
    found = store.newest(lambda place, reason: told.append((place.name, reason)), before)
    return found and found.state, told


def steps(store: RemoteStore) -> list[int]:
    return [size.step for size in store.sizes()]


def test_the_newest_is_found_with_its_state_config_and_files(
    remote: RemoteStore, put: Write, make_state: State, config: dict[str, Any]
) -> None:
    assert newest(remote) == (None, [])
    put(remote, 20)
    folder = put(remote, 40, cursor=7)
    found = remote.newest(lambda place, reason: pytest.fail(reason))
    assert found is not None
    assert (found.path, found.state, found.config) == (folder, make_state(40, 7), config)
    assert found.learner_files().startswith(f"{folder / 'learner'}#sha256=")
    assert newest(remote, before=40) == (make_state(20), [])
    assert [size.num_bytes for size in remote.sizes()] == [
        sum(file.num_bytes for file in size.path.files().values())
        for size in remote.sizes()  # type: ignore[union-attr]
    ]


def test_the_newest_so_many_stay_and_those_of_a_future_that_is_no_more_go(
    remote: RemoteStore, put: Write, s3: S3
) -> None:
    for step in (10, 20, 30):
        put(remote, step)
    assert steps(remote) == [20, 30]
    put(remote, 25)
    assert steps(remote) == [20, 25]
    assert {name.partition("/")[0][:11] for name in s3.names(PREFIX)} == {"step-000020", "step-000025"}


def test_one_of_the_same_step_takes_the_place_of_the_other_only_when_it_is_whole(
    remote: RemoteStore, put: Write, make_state: State
) -> None:
    put(remote, 40, cursor=1)
    upload(remote.begin(40), seed=2)
    assert newest(remote) == (make_state(40, 1), [])
    remote.discard(40)
    assert newest(remote) == (make_state(40, 1), [])
    put(remote, 40, cursor=2)
    assert newest(remote) == (make_state(40, 2), [])
    assert steps(remote) == [40]


def test_a_writer_that_was_given_up_cannot_touch_the_next_one(
    remote: RemoteStore, put: Write, make_state: State
) -> None:
    given_up = remote.begin(40)
    remote.discard(40)
    put(remote, 40)
    upload(given_up, seed=9)  # a learner that nobody waits for any more
    assert newest(remote) == (make_state(40), [])
    assert remote.unfinished_bytes() > 0
    remote.begin(50)
    assert remote.unfinished_bytes() == 0


@pytest.mark.parametrize(
    "last", ["learner/__0_0.distcp", "learner/.metadata", "state.json", "config.yaml", "manifest.sha256"]
)
def test_a_driver_killed_before_the_manifest_is_there_leaves_the_one_before(
    remote: RemoteStore, put: Write, make_state: State, s3: S3, last: str
) -> None:
    """What is there after `last` was written is what a driver that is killed then leaves."""
    put(remote, 20)
    folder = put(remote, 40)
    order = [
        "learner/__0_0.distcp",
        "learner/.metadata",
        "state.json",
        "config.yaml",
        "manifest.sha256",
        "manifest.json",
    ]
    for name in order[order.index(last) + 1 :]:
        del s3.objects[f"{PREFIX}{folder.name}/{name}"]
    assert newest(remote) == (make_state(20), [])
    assert steps(remote) == [20]
    remote.begin(60)
    assert not [name for name in s3.names(PREFIX) if name.startswith(folder.name)]


@pytest.mark.parametrize(
    "name", ["learner/__0_0.distcp", "learner/.metadata", "state.json", "config.yaml", "manifest.json"]
)
def test_a_damaged_one_is_named_and_the_one_before_is_used(
    remote: RemoteStore, put: Write, make_state: State, s3: S3, name: str
) -> None:
    put(remote, 20)
    folder = put(remote, 40)
    key = f"{PREFIX}{folder.name}/{name}"
    whole = s3.objects[key]
    s3.objects[key] = bytes([whole[0] ^ 1]) + whole[1:]
    assert newest(remote) == (make_state(20), [(folder.name, f"{name}: its content has changed (sha256)")])
    s3.objects[key] = whole[:-1]
    state, told = newest(remote)
    assert state == make_state(20)
    assert told[0][1].startswith(f"{name}: ")
    s3.objects[key] = whole
    s3.put(f"{PREFIX}{folder.name}/stray", b"x")
    assert newest(remote) == (make_state(20), [(folder.name, "stray: is no part of the checkpoint")])


def test_files_that_are_not_those_that_the_learners_tell_of_make_no_checkpoint(
    remote: RemoteStore, make_state: State, config: dict[str, Any], s3: S3
) -> None:
    files = upload(remote.begin(40))
    key = next(key for key in s3.objects if key.endswith("distcp"))
    s3.objects[key] += b"x"
    with pytest.raises(CheckpointDamaged, match=r"__0_0\.distcp: .* bytes instead of"):
        remote.commit(make_state(40), config, files)
    assert steps(remote) == []


def test_a_store_that_cannot_be_used_is_no_store_without_checkpoints(remote: RemoteStore, put: Write, s3: S3) -> None:
    put(remote, 40)
    s3.refused = "GET"
    for doing in (
        remote.sizes,
        remote.unfinished_bytes,
        remote.clear,
        lambda: remote.begin(50),
        lambda: newest(remote),
    ):
        with pytest.raises(StorageError, match="ACCESS_DENIED"):
            doing()
    remote.discard(50)


def test_all_can_be_removed_and_what_is_no_checkpoint_stays(remote: RemoteStore, put: Write, s3: S3) -> None:
    put(remote, 20)
    upload(remote.begin(40))
    s3.put(f"{PREFIX}notes", b"x")
    remote.clear()
    assert s3.names(PREFIX) == ["notes"]


class Uploading:
    """Learners that write to the store at once, and are refused where the store refuses."""

    def __init__(self) -> None:
        self.folder: RemoteFolder

    def save(self, folder: str) -> None:
        self.folder = RemoteFolder(folder).parent

    def written(self) -> list[SavedFile]:
        return upload(self.folder)


def test_a_writer_makes_them_in_the_background_and_tells_what_the_store_refuses(
    remote: RemoteStore, make_state: State, config: dict[str, Any], s3: S3
) -> None:
    saved: list[Any] = []
    with CheckpointWriter(remote, Uploading(), on_saved=lambda *told: saved.append(told)) as writer:
        writer.begin(make_state(20), config)
        writer.finish()
        s3.refused = "PUT .*manifest"
        writer.begin(make_state(40), config)
        with pytest.raises(CheckpointFailed) as raised:
            writer.finish()
    assert [told[0] for told in saved] == [20]
    told = str(raised.value)
    assert told.startswith(f"the checkpoint of step 40 could not be written to {remote.folder}: ")
    assert "ACCESS_DENIED" in told
    assert told.endswith("the last good one is that of step 20: put this right and go on with --resume")
    assert {name[:11] for name in s3.names(PREFIX)} == {"step-000020"}


def test_a_folder_can_be_cleared_likewise(store: CheckpointStore, write: Callable[..., Path]) -> None:
    write(store, 20)
    (store.begin(40) / "x").touch()
    store.clear()
    assert not store.folder.exists()
