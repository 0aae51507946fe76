"""The tensors that a learner's next step depends on: written while the next steps run, and read back in place."""

import errno
import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import Future, wait
from datetime import timedelta
from pathlib import Path
from threading import Thread

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult

from actors.messages import SavedFile
from actors.policy_model import PolicyModel

# Ranks wait for the slowest disk among them, which is no dead peer: `written` has the time limit that counts.
PEER_TIMEOUT = timedelta(hours=1)


class CheckpointNotWritten(RuntimeError):
    """A checkpoint is not written. `reason` says why, `disk_full` whether for want of space or of quota."""

    def __init__(self, reason: str, disk_full: bool = False) -> None:
        super().__init__(f"checkpoint not written: {reason}")
        self.reason = reason
        self.disk_full = disk_full

    def __reduce__(self) -> tuple[type["CheckpointNotWritten"], tuple[str, bool]]:
        return CheckpointNotWritten, (self.reason, self.disk_full)


class LearnerState:
    """The weights, AdamW's moments and each rank's random state. All ranks get the same calls in the same order.

    state = LearnerState(model, optimizer, rank=0, world_size=1)
    state.save(Path("step-000100.partial/learner"))     # the next step may begin
    files = state.written(timeout_s=600)                # in another thread, or later
    state.load(Path("step-000100/learner"))

    The files hold tensors only: `model/<name>`, `optimizer/<name>/{exp_avg,exp_avg_sq,step}` once there has been an
    update, `random/rank-<r>` and, on a GPU, `random/rank-<r>/cuda`.
    """

    def __init__(self, model: PolicyModel, optimizer: torch.optim.Optimizer, rank: int, world_size: int) -> None:
        """Define the state of a sharded model that `optimizer` updates. Collective."""
        self._model = model
        self._optimizer = optimizer
        self._rank = rank
        # A group of its own: what the writing thread sends must never meet what a step sends, and NCCL sends no objects
        # between CPUs.
        self._group = dist.new_group(list(range(world_size)), timeout=PEER_TIMEOUT, backend="gloo")
        self._parameters = dict(model.model.named_parameters())  # FSDP2 keeps these, the shards, whatever it gathers
        self._writing: Future[tuple[SavedFile, ...]] | None = None

    def save(self, folder: Path) -> None:
        """Copy everything to host memory, then write it in the background; what comes later does not reach the files.

        Collective. Waits first for the save before this one, whatever became of it.

        Args:
            folder: to write, on storage that all ranks share; it holds no checkpoint yet.
        """
        self._wait()
        tensors = {name: tensor.to("cpu", copy=True) for name, tensor in (self._tensors() | self._random()).items()}
        writing = self._writing = Future()
        Thread(target=self._write, args=(folder, tensors, writing), name="checkpoint", daemon=True).start()

    def _wait(self) -> None:
        if self._writing is not None:
            wait([self._writing])

    def written(self, timeout_s: float) -> tuple[SavedFile, ...]:
        """The files that this rank wrote for the save begun last, once all ranks' are on disk; for any thread.

        Rank 0 has `.metadata` too. Names start with that of the folder: `learner/__0_0.distcp`.

        Raises:
            CheckpointNotWritten: on every rank when one of them could not write, or after `timeout_s`; then the writing
                goes on, and the next save will wait for it.
        """
        if self._writing is None:
            raise CheckpointNotWritten("no save was begun")
        try:
            return self._writing.result(timeout_s)
        except TimeoutError:
            raise CheckpointNotWritten(f"no end after {timeout_s:g} s") from None

    def load(self, folder: Path) -> None:
        """Put everything back in place, as any number of ranks saved it; gradients are dropped. Collective.

        Waits first for a save that is still being written.

        A rank whose random state was not saved, because there were fewer ranks then, keeps its own. A checkpoint from
        before the first update leaves the optimizer without moments.

        `.metadata` is a pickle, which can run any code: the caller has compared the files' checksums beforehand.

        Raises:
            ValueError: it is of another model; the first tensor that differs is named, and nothing has changed.
            OSError: there is no checkpoint.
            RuntimeError: a file cannot be read; the learner is then neither what it was nor what was saved.
        """
        self._wait()
        saved = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
        self._check(saved, folder)
        self._optimizer.zero_grad(set_to_none=True)
        self._optimizer.state.clear()
        for name, parameter in self._parameters.items():
            if f"optimizer/{name}/step" in saved:
                self._optimizer.state[parameter] = {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(parameter.detach()),
                    "exp_avg_sq": torch.zeros_like(parameter.detach()),
                }
        random = {name: tensor for name, tensor in self._random().items() if name in saved}
        try:
            dcp.load(self._tensors() | random, storage_reader=dcp.FileSystemReader(folder), process_group=self._group)
        except CheckpointException as error:  # which is no Exception
            raise RuntimeError(f"{folder}: cannot be read: {_reason(error)[0]}") from error
        self._restore_random(random)

    def _tensors(self) -> dict[str, Tensor]:
        """Weights and moments themselves, not copies, by name; a tied weight once."""
        weights = {f"model/{name}": tensor.detach() for name, tensor in self._parameters.items()}
        persistent = self._model.model.state_dict().keys()  # asking for it also gives back what FSDP2 has gathered
        for name, buffer in self._model.model.named_buffers():
            if name in persistent:
                weights[f"model/{name}"] = buffer
        moments = {
            f"optimizer/{name}/{kind}": tensor
            for name, parameter in self._parameters.items()
            for kind, tensor in self._optimizer.state.get(parameter, {}).items()
        }
        return weights | moments

    def _random(self) -> dict[str, Tensor]:
        """Copies of this rank's random state, by name."""
        name = f"random/rank-{self._rank}"
        of_gpu = {f"{name}/cuda": torch.cuda.get_rng_state()} if self._model.device.type == "cuda" else {}
        return {name: torch.get_rng_state(), **of_gpu}

    def _restore_random(self, states: Mapping[str, Tensor]) -> None:
        for name, state in states.items():
            if name.endswith("/cuda"):
                torch.cuda.set_rng_state(state)
            else:
                torch.set_rng_state(state)

    def _check(self, saved: Mapping[str, object], folder: Path) -> None:
        """Raise ValueError unless the weights in a checkpoint have the names, sizes and types of the model's."""
        own = {name: tensor for name, tensor in self._tensors().items() if name.startswith("model/")}
        for name in [*own, *(name for name in saved if name.startswith("model/"))]:
            theirs, ours = _described(saved.get(name)), _described(own.get(name))
            if theirs != ours:
                raise ValueError(f"{folder}: {name}: the checkpoint has {theirs}, the model {ours}")

    def _write(self, folder: Path, tensors: dict[str, Tensor], writing: Future[tuple[SavedFile, ...]]) -> None:
        try:
            dcp.save(tensors, storage_writer=_Writer(folder), process_group=self._group)
            files = self._files(folder)
        except (Exception, CheckpointException) as error:
            reason, disk_full = _reason(error)
            failure = CheckpointNotWritten(f"{folder}: {reason}", disk_full)
            failure.__cause__ = error.with_traceback(None)  # whose frames would keep the copies in memory
            writing.set_exception(failure)
        else:
            writing.set_result(files)

    def _files(self, folder: Path) -> tuple[SavedFile, ...]:
        """Hashes of this rank's files, which are then, and their names too, safe from a loss of power."""
        paths = [*sorted(folder.glob(f"__{self._rank}_*")), *([folder / ".metadata"] if self._rank == 0 else [])]
        files = tuple(_hashed(path) for path in paths)
        for directory in (folder, folder.parent):
            handle = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        return files


class _Writer(dcp.FileSystemWriter):
    """Writes a file per rank, in one thread: torch loses the errors of further threads."""

    def __init__(self, folder: Path) -> None:
        # Without copying ahead, which is for tensors on a GPU and would wait for the training step there.
        super().__init__(folder, thread_count=1, per_thread_copy_ahead=0, overwrite=False)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> torch.futures.Future[list[WriteResult]]:
        try:
            return super().write_data(plan, planner)
        except Exception as error:  # goes to the other ranks as a pickle, which leaves out what lies under an error
            raise CheckpointNotWritten(*_reason(error)) from error


def _reason(error: BaseException) -> tuple[str, bool]:
    """What went wrong, in one line, on the first of the ranks that failed; whether a disk or a quota is full."""
    if isinstance(error, CheckpointNotWritten):
        return error.reason, error.disk_full
    if isinstance(error, CheckpointException):
        reasons = {rank: _reason(failure) for rank, (failure, _) in sorted(error.failures.items())}
        rank, (first, _) = next(iter(reasons.items()))
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return f"rank {rank}{more}: {first}", any(full for _, full in reasons.values())
    # torch's zip writer says nothing of the disk: the system's error lies under its own.
    under: BaseException | None = error
    while under is not None and not isinstance(under, OSError):
        under = under.__cause__ or under.__context__
    cause = under or error
    disk_full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{type(cause).__name__}: {cause}".partition("\n")[0], disk_full


def _described(tensor: object) -> str:
    """Type and size of a tensor or of its entry in `.metadata`."""
    if isinstance(tensor, TensorStorageMetadata):
        return f"{tensor.properties.dtype} {list(tensor.size)}"
    return f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, Tensor) else "no such tensor"


def _hashed(path: Path) -> SavedFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())  # once more: DCP syncs .metadata before the end of it has left Python's buffer
        size = os.fstat(file.fileno()).st_size
    return SavedFile(name=f"{path.parent.name}/{path.name}", num_bytes=size, sha256=digest)
