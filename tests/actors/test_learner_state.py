"""A learner's checkpoint: real FSDP2 ranks go on from it bit for bit, and what cannot be written or read is told."""

import errno
import hashlib
import io
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed.checkpoint as dcp
from learner_ranks import (
    MODEL,
    SPEC,
    Call,
    batch,
    largest_difference,
    lone_rank,
    play_on_two_ranks,
    save,
    shard_of,
    state_of,
    train,
)
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystem
from transformers import AutoConfig, AutoModelForCausalLM

from actors.config import OptimizerConfig
from actors.learner import Learner
from actors.messages import GradientReport, LearnerShard, SavedFile
from actors.policy_model import PaddedBatch
from actors.storage.writer import CheckpointNotWritten
from orchestrator.batching import shard_batch

pytestmark = pytest.mark.slow

ADAMW = {"optimizer": OptimizerConfig(weight_decay=0.01)}  # with an eps that lets the moments matter
WHOLE = shard_of(batch())


@pytest.fixture
def learner(build: Callable[..., Learner]) -> Learner:
    return build(**ADAMW)


def halves() -> list[LearnerShard]:
    """The batch on two ranks."""
    return shard_batch(batch(), 2, 60, halves=False, whole_groups=True)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_random(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("random/")}


def statistics(*reports: GradientReport) -> dict[str, float]:
    """Of a step, over all ranks."""
    merged = GradientReport().merge(*reports)
    sums = {"loss": merged.loss, "gradient": merged.grad_square_sum, "entropy": merged.entropy_sum}
    return sums | merged.mismatch.metrics()


def names_in(folder: Path) -> list[str]:
    """Of the tensors in a checkpoint."""
    return list(dcp.FileSystemReader(folder).read_metadata().state_dict_metadata)


def files_in(folder: Path) -> set[SavedFile]:
    return {
        SavedFile(
            name=f"{folder.name}/{path.name}",
            num_bytes=path.stat().st_size,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.iterdir()
    }


def failure_of(learner: Learner, folder: Path) -> CheckpointNotWritten:
    error = save(learner, folder)
    assert isinstance(error, CheckpointNotWritten)
    return error


def test_a_learner_goes_on_from_its_checkpoint_as_it_did_bit_for_bit(learner: Learner, tmp_path: Path) -> None:
    train(learner, WHOLE, steps=2)
    save(learner, tmp_path / "learner")
    saved = state_of(learner)
    reports = train(learner, WHOLE, steps=2)
    after = state_of(learner)
    assert not any(torch.equal(saved[name], after[name]) for name in saved if not name.startswith("random/"))
    learner.load(str(tmp_path / "learner"))
    assert same(state_of(learner), saved)
    assert train(learner, WHOLE, steps=2) == reports
    assert same(state_of(learner), after)


def test_a_new_process_goes_on_as_the_saved_one_did(build: Callable[..., Learner], tmp_path: Path) -> None:
    learner = build(**ADAMW)
    train(learner, WHOLE)
    save(learner, tmp_path / "learner")
    reports = train(learner, WHOLE, steps=2)
    after = state_of(learner)
    learner = build(**ADAMW)
    learner.load(str(tmp_path / "learner"))
    assert train(learner, WHOLE, steps=2) == reports
    assert same(state_of(learner), after)


def test_the_files_hold_weights_once_moments_and_the_random_state(learner: Learner, tmp_path: Path) -> None:
    weights = [name for name, _ in learner._model.model.named_parameters()]
    save(learner, tmp_path / "fresh")
    train(learner, WHOLE)
    save(learner, tmp_path / "trained")
    fresh = {f"model/{name}" for name in weights} | {"random/rank-0"}
    moments = {f"optimizer/{name}/{kind}" for name in weights for kind in ("step", "exp_avg", "exp_avg_sq")}
    assert set(names_in(tmp_path / "fresh")) == fresh
    assert set(names_in(tmp_path / "trained")) == fresh | moments
    assert set(state_of(learner)) == fresh | moments


def test_a_checkpoint_from_before_the_first_update_takes_the_moments_back(learner: Learner, tmp_path: Path) -> None:
    save(learner, tmp_path / "learner")
    saved, reports = state_of(learner), train(learner, WHOLE, steps=2)
    after = state_of(learner)
    learner.load(str(tmp_path / "learner"))
    assert same(state_of(learner), saved)
    assert not learner._optimizer.state
    assert train(learner, WHOLE, steps=2) == reports
    assert same(state_of(learner), after)


def test_random_numbers_go_on_where_they_were(learner: Learner, tmp_path: Path) -> None:
    save(learner, tmp_path / "learner")
    drawn = torch.rand(4)
    learner.load(str(tmp_path / "learner"))
    assert torch.equal(torch.rand(4), drawn)


def test_a_persistent_buffer_is_saved_and_another_is_not(learner: Learner, tmp_path: Path) -> None:
    model = learner._model.model
    model.register_buffer("count", torch.ones(2))
    model.register_buffer("table", torch.ones(2), persistent=False)
    save(learner, tmp_path / "learner")
    model.count.zero_()
    learner.load(str(tmp_path / "learner"))
    assert model.count.tolist() == [1, 1]
    assert "model/table" not in names_in(tmp_path / "learner")


def test_a_gradient_or_perturbation_from_before_is_gone_when_a_checkpoint_is_loaded(
    learner: Learner, tmp_path: Path
) -> None:
    save(learner, tmp_path / "learner")
    saved, reports = state_of(learner), train(learner, WHOLE)
    after = state_of(learner)
    learner.perturb(seed=3)
    learner.compute_gradients(WHOLE)
    learner.load(str(tmp_path / "learner"))
    learner.restore()
    assert same(state_of(learner), saved)
    assert train(learner, WHOLE) == reports
    assert same(state_of(learner), after)


def test_weights_that_a_forward_pass_has_left_gathered_are_not_used_again(learner: Learner, tmp_path: Path) -> None:
    train(learner, WHOLE)
    save(learner, tmp_path / "learner")
    scores = learner.score(batch())
    train(learner, WHOLE)
    batched = PaddedBatch(batch(), torch.device("cpu"))
    with torch.no_grad():
        learner._model(batched.input_ids, batched.positions, batched.targets)
    learner.load(str(tmp_path / "learner"))
    assert largest_difference(learner.score(batch()), scores) == 0


@contextmanager
def held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Nothing is written before the event is set, at the latest when the block ends."""
    go, write = Event(), dcp.save

    def wait_and_write(*args: Any, **kwargs: Any) -> Any:
        go.wait()
        return write(*args, **kwargs)

    monkeypatch.setattr(dcp, "save", wait_and_write)
    try:
        yield go
    finally:
        go.set()


def test_a_step_is_made_while_the_weights_from_before_it_are_written(
    learner: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(learner, WHOLE)
    saved = state_of(learner)
    with held_up(monkeypatch) as go:
        learner.save(str(tmp_path / "learner"))
        train(learner, WHOLE)
        with pytest.raises(CheckpointNotWritten, match=r"no end after 0\.01 s") as raised:
            learner.written(timeout_s=0.01)
        assert not raised.value.disk_full
        assert not (tmp_path / "learner").exists()
        go.set()
        assert set(learner.written(timeout_s=60)) == files_in(tmp_path / "learner")
    learner.load(str(tmp_path / "learner"))
    assert same(state_of(learner), saved)


@pytest.mark.parametrize("call", [Learner.save, Learner.load])
def test_the_next_save_or_load_waits_for_the_one_being_written(
    learner: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[Learner, str], None]
) -> None:
    save(learner, tmp_path / "older")
    train(learner, WHOLE)
    with held_up(monkeypatch) as go:
        learner.save(str(tmp_path / "learner"))
        other = tmp_path / ("newer" if call is Learner.save else "older")
        caller = Thread(target=call, args=(learner, str(other)))
        caller.start()
        caller.join(0.2)
        assert caller.is_alive()
        go.set()
        caller.join(60)
        learner.written(timeout_s=60)
    assert len(files_in(tmp_path / "learner")) == len(files_in(other)) == 2


class Gang(NamedTuple):
    """What two ranks did, each of them."""

    folder: Path
    files: list[tuple[SavedFile, ...]]
    saved: list[dict[str, Tensor]]
    reports: list[list[GradientReport]]  # of the step after it, before and after the checkpoint was loaded
    after: list[list[dict[str, Tensor]]]  # that step, likewise


@pytest.fixture(scope="module")
def gang(tmp_path_factory: pytest.TempPathFactory) -> Gang:
    """Two ranks that train, save, make a step while that is being written, load and make it again."""
    folder = tmp_path_factory.mktemp("gang") / "learner"

    def calls(shard: LearnerShard) -> list[Call]:
        step: list[Call] = [(train, shard), (state_of,)]
        begin, end, load = (Learner.save, str(folder)), (Learner.written, 60), (Learner.load, str(folder))
        return [(train, shard, 2), (state_of,), begin, *step, end, load, *step]

    answers = play_on_two_ranks(SPEC.config.model_copy(update=ADAMW), *(calls(shard) for shard in halves()))
    return Gang(
        folder=folder,
        files=[answer[5] for answer in answers],
        saved=[answer[1] for answer in answers],
        reports=[[*answer[3], *answer[7]] for answer in answers],
        after=[[answer[4], answer[8]] for answer in answers],
    )


def test_two_ranks_go_on_from_their_checkpoint_bit_for_bit(gang: Gang) -> None:
    for saved, (first, second), (report, again) in zip(gang.saved, gang.after, gang.reports, strict=True):
        assert same(first, second) and report == again
        assert not same(first, saved)


def test_every_file_is_told_by_exactly_one_rank_with_its_size_and_hash(gang: Gang) -> None:
    assert {file for files in gang.files for file in files} == files_in(gang.folder)
    assert [[file.name for file in files] for files in gang.files] == [
        ["learner/__0_0.distcp", "learner/.metadata"],
        ["learner/__1_0.distcp"],
    ]


def test_one_rank_goes_on_from_the_checkpoint_of_two(gang: Gang, build: Callable[..., Learner]) -> None:
    learner = build(**ADAMW)
    learner.load(str(gang.folder))
    assert same(state_of(learner), gang.saved[0])
    (report,) = train(learner, WHOLE)
    of_two = statistics(*(reports[0] for reports in gang.reports))
    assert statistics(report) == pytest.approx(of_two, rel=1e-5)


def test_two_ranks_go_on_from_the_checkpoint_of_one(tmp_path: Path) -> None:
    with lone_rank() as start:
        learner = start(**ADAMW)
        train(learner, WHOLE, steps=2)
        torch.manual_seed(7)
        save(learner, tmp_path / "learner")
        saved, (report,) = state_of(learner), train(learner, WHOLE)
    config = SPEC.config.model_copy(update=ADAMW)
    calls: list[list[Call]] = [
        [(state_of,), (Learner.load, str(tmp_path / "learner")), (state_of,), (train, shard)] for shard in halves()
    ]
    first, second = play_on_two_ranks(config, *calls)
    assert same(first[2], saved)
    assert same(without_random(second[2]), without_random(saved))
    assert torch.equal(second[2]["random/rank-1"], second[0]["random/rank-1"])
    assert statistics(*first[3], *second[3]) == pytest.approx(statistics(report), rel=1e-5)


def test_where_one_rank_s_disk_is_full_every_rank_says_so_and_can_save_elsewhere(tmp_path: Path) -> None:
    full, blocked, good = tmp_path / "full", tmp_path / "file" / "learner", tmp_path / "learner"
    full.mkdir()
    (full / "__1_0.distcp").symlink_to("/dev/full")
    blocked.parent.write_text("no folder")
    calls: list[list[Call]] = [
        [(train, shard), (save, full), (train, shard), (save, blocked), (save, good)] for shard in halves()
    ]
    first, second = play_on_two_ranks(SPEC.config, *calls)
    for answers in (first, second):
        no_space, no_folder = answers[1], answers[3]
        assert no_space.reason == f"{full}: rank 1: OSError: [Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}"
        assert no_space.disk_full and not no_folder.disk_full
        assert no_folder.reason.startswith(f"{blocked}: rank 0 (and 1 more): NotADirectoryError: ")
    assert {*first[4], *second[4]} == files_in(good)
    assert not (full / ".metadata").exists()


class FullDisk(io.BytesIO):
    """A file with room for some bytes only, and nothing left to write when it is closed, as on a real disk."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self._code = code

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 100_000:
            raise OSError(self._code, os.strerror(self._code))
        return super().write(data)


@pytest.mark.parametrize(
    ("code", "disk_full"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)],
    ids=["disk", "quota", "damaged"],
)
def test_a_full_disk_is_known_although_torch_hides_the_system_s_error(
    learner: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, disk_full: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FileSystem, "create_stream", contextmanager(lambda *_: iter([FullDisk(code)])))
        error = failure_of(learner, tmp_path / "learner")
    assert error.disk_full == disk_full
    assert str(error) == f"checkpoint not written: {error.reason}"
    assert error.reason == f"{tmp_path / 'learner'}: rank 0: OSError: [Errno {code}] {os.strerror(code)}"
    assert isinstance(save(learner, tmp_path / "elsewhere"), tuple)


def test_the_error_crosses_processes_with_its_fields(learner: Learner, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotWritten, match="no save was begun"):
        learner.written(timeout_s=1)
    save(learner, tmp_path / "learner")
    error = failure_of(learner, tmp_path / "learner")  # what is there is not written over
    assert (
        error.reason
        == f"{tmp_path / 'learner'}: rank 0: RuntimeError: Checkpoint already exists and self.overwrite=False."
    )
    for one in (error, CheckpointNotWritten("no space", disk_full=True)):
        copy = pickle.loads(pickle.dumps(one))
        assert type(copy) is CheckpointNotWritten
        assert (str(copy), copy.reason, copy.disk_full) == (str(one), one.reason, one.disk_full)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (
            {"num_hidden_layers": 1},
            "model.layers.1.self_attn.q_proj.weight: the checkpoint has {}, the model no such tensor",
        ),
        (
            {"num_hidden_layers": 3},
            "model.layers.2.self_attn.q_proj.weight: the checkpoint has no such tensor, the model {}",
        ),
        (
            {"intermediate_size": 192},
            "model.layers.0.mlp.gate_proj.weight: the checkpoint has torch.float32 [256, 128], "
            "the model torch.float32 [192, 128]",
        ),
    ],
    ids=["fewer layers", "more layers", "narrower"],
)
def test_a_checkpoint_of_another_model_is_refused_and_changes_nothing(
    build: Callable[..., Learner], tmp_path: Path, change: dict[str, int], difference: str
) -> None:
    folder = tmp_path / "learner"
    save(build(**ADAMW), folder)
    config = AutoConfig.from_pretrained(MODEL)
    config.update({**change, "layer_types": ["full_attention"] * change.get("num_hidden_layers", 2)})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "other")
    other = build(model=str(tmp_path / "other"), **ADAMW)
    train(other, WHOLE)
    before = state_of(other)
    with pytest.raises(ValueError) as raised:
        other.load(str(folder))
    assert str(raised.value) == f"{folder}: model/" + difference.format("torch.float32 [128, 128]")
    assert same(state_of(other), before)


def test_a_checkpoint_that_is_not_there_or_torn_is_no_checkpoint(learner: Learner, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        learner.load(str(tmp_path / "learner"))
    save(learner, tmp_path / "learner")
    os.truncate(tmp_path / "learner" / "__0_0.distcp", 1000)
    with pytest.raises(RuntimeError, match=rf"^{tmp_path / 'learner'}: cannot be read: rank 0: "):
        learner.load(str(tmp_path / "learner"))
