"""A trained policy as a Hugging Face folder that transformers and vLLM load: weights, configuration, tokenizer."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer

from actors.policy_model import PolicyModel, whole

SHARD_BYTES = 4 * 2**30  # of a weights file; what is held in memory beside the largest tensor
INDEX = "model.safetensors.index.json"
Tensors = Iterator[tuple[str, Tensor]]


class ExportFailed(RuntimeError):
    """The folder could not be written."""


def export(model: PolicyModel, source: str, folder: Path, dtype: torch.dtype, *, writes: bool) -> None:
    """Write a folder, all of it or none: it takes its name when it is complete.

    Collective: every rank takes part in gathering the tensors, one by one, and one of them writes.

    Args:
        model: sharded or not.
        source: folder or hub name it was loaded from, which has its tokenizer.
        folder: to write; what is there already is replaced.
        dtype: of the floating-point tensors in the files.
        writes: whether this rank is the one that writes.

    Raises:
        ExportFailed: on the rank that writes; what was there before is still there.
    """
    tensors = _gathered(model, dtype)
    if not writes:
        for _ in tensors:
            pass
        return
    try:
        _write(model, source, folder, tensors, dtype)
    except (OSError, SafetensorError) as error:
        raise ExportFailed(f"{folder}: the model cannot be written: {str(error).partition(chr(10))[0]}") from error


def _write(model: PolicyModel, source: str, folder: Path, tensors: Tensors, dtype: torch.dtype) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_weights(tensors, partial)
    config = type(model.model.config).from_dict(model.model.config.to_dict())
    config.dtype = dtype
    config.save_pretrained(partial)
    if model.model.can_generate():
        model.model.generation_config.save_pretrained(partial)
    AutoTokenizer.from_pretrained(source).save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _gathered(model: PolicyModel, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Whole tensors on the CPU; a tied output head is left out, as its file format asks for."""
    tied = model.tied_names()
    for name, tensor in model.exported_state().items():
        if tied and name == tied[1]:
            continue
        full = whole(tensor, model.device)
        yield name, (full.to(dtype) if full.is_floating_point() else full).cpu().contiguous()


def _write_weights(tensors: Iterator[tuple[str, Tensor]], folder: Path) -> None:
    """Files of at most SHARD_BYTES, as long as no tensor is larger, and the index where there are several."""
    files: list[dict[str, int]] = []  # bytes of each tensor in each file
    held: dict[str, Tensor] = {}
    for name, tensor in tensors:
        if held and _num_bytes(*held.values(), tensor) > SHARD_BYTES:
            files.append(_write_file(held, folder, len(files)))
            held = {}
        held[name] = tensor
    files.append(_write_file(held, folder, len(files)))
    if len(files) == 1:
        _part(folder, 0).rename(folder / "model.safetensors")
        return
    names = [f"model-{number + 1:05d}-of-{len(files):05d}.safetensors" for number in range(len(files))]
    for number, name in enumerate(names):
        _part(folder, number).rename(folder / name)
    weight_map = {tensor: name for name, tensors_of in zip(names, files, strict=True) for tensor in tensors_of}
    total = sum(size for sizes in files for size in sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_file(tensors: dict[str, Tensor], folder: Path, number: int) -> dict[str, int]:
    save_file(tensors, _part(folder, number), metadata={"format": "pt"})
    return {name: _num_bytes(tensor) for name, tensor in tensors.items()}


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number}.safetensors"


def _num_bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
