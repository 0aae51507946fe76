"""The tensors that a learner's next step depends on: written while the next steps run, and read back in place."""

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

from actors.messages import SavedFile
from actors.policy_model import PolicyModel
from actors.storage.reader import reader_of
from actors.storage.remote_folder import RemoteFolder, is_remote
from actors.storage.writer import CheckpointNotWritten, reason_of, writer_to

# Ranks wait for the slowest disk among them, which is no dead peer: `written` has the time limit that counts.
PEER_TIMEOUT = timedelta(hours=1)


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

    def save(self, folder: str | Path) -> None:
        """Copy everything to host memory, then write it in the background; what comes later does not reach the files.

        Collective. Waits first for the save before this one, whatever became of it.

        Args:
            folder: to write, on storage that all ranks share, or a URI in an object store; it holds no checkpoint yet.
        """
        self._wait()
        tensors = {name: tensor.to("cpu", copy=True) for name, tensor in (self._tensors() | self._random()).items()}
        writing = self._writing = Future()
        Thread(target=self._write, args=(_place(folder), tensors, writing), name="checkpoint", daemon=True).start()

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

    def load(self, folder: str | Path) -> None:
        """Put everything back in place, as any number of ranks saved it; gradients are dropped. Collective.

        Waits first for a save that is still being written.

        A rank whose random state was not saved, because there were fewer ranks then, keeps its own. A checkpoint from
        before the first update leaves the optimizer without moments.

        `.metadata` is a pickle, which can run any code: the caller has compared the files' checksums beforehand. Files
        that come from an object store are compared once more.

        Args:
            folder: as in `save`; of an object store, what `RemoteState` writes.

        Raises:
            ValueError: it is of another model; the first tensor that differs is named, and nothing has changed.
            OSError: there is no checkpoint, or the local disk refuses.
            StorageError: the object store cannot be used.
            RuntimeError: a file cannot be read; the learner is then neither what it was nor what was saved.
        """
        self._wait()
        with reader_of(folder) as reader:
            self._read(reader, folder)

    def _read(self, reader: dcp.FileSystemReader, folder: str | Path) -> None:
        saved = reader.read_metadata().state_dict_metadata
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
            dcp.load(self._tensors() | random, storage_reader=reader, process_group=self._group)
        except CheckpointException as error:  # which is no Exception
            raise RuntimeError(f"{folder}: cannot be read: {reason_of(error)[0]}") from error
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

    def _check(self, saved: Mapping[str, object], folder: str | Path) -> None:
        """Raise ValueError unless the weights in a checkpoint have the names, sizes and types of the model's."""
        own = {name: tensor for name, tensor in self._tensors().items() if name.startswith("model/")}
        for name in [*own, *(name for name in saved if name.startswith("model/"))]:
            theirs, ours = _described(saved.get(name)), _described(own.get(name))
            if theirs != ours:
                raise ValueError(f"{folder}: {name}: the checkpoint has {theirs}, the model {ours}")

    def _write(
        self, folder: Path | RemoteFolder, tensors: dict[str, Tensor], writing: Future[tuple[SavedFile, ...]]
    ) -> None:
        try:
            with writer_to(folder) as writer:
                dcp.save(tensors, storage_writer=writer, process_group=self._group)
                files = writer.files(self._rank)
        except (Exception, CheckpointException) as error:
            reason, disk_full = reason_of(error)
            failure = CheckpointNotWritten(f"{folder}: {reason}", disk_full)
            failure.__cause__ = error.with_traceback(None)  # whose frames would keep the copies in memory
            writing.set_exception(failure)
        else:
            writing.set_result(files)


def _place(folder: str | Path) -> Path | RemoteFolder:
    return RemoteFolder(str(folder)) if is_remote(str(folder)) else Path(folder)


def _described(tensor: object) -> str:
    """Type and size of a tensor or of its entry in `.metadata`."""
    if isinstance(tensor, TensorStorageMetadata):
        return f"{tensor.properties.dtype} {list(tensor.size)}"
    return f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, Tensor) else "no such tensor"
