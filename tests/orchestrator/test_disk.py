"""Room for checkpoints: their size from a model's headers, how many at a time, and a disk that is too small."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from orchestrator.disk import DiskTooSmall, check_room, checkpoint_bytes, free_bytes, room_needed, size_text
from orchestrator.model_files import embedded_model

MIB = 2**20


def make_model(folder: Path, files: dict[str, dict[str, tuple[int, ...]]], tied: bool = False) -> Path:
    """A model folder with tensors of these shapes in these files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": tied}))
    for name, shapes in files.items():
        save_file({tensor: np.zeros(shape, np.float16) for tensor, shape in shapes.items()}, folder / name)
    return folder


EMBEDDING, HEAD, LAYER = (
    {"model.embed_tokens.weight": (32, 8)},
    {"lm_head.weight": (32, 8)},
    {"model.norm.weight": (8,)},
)


def test_a_parameter_takes_weight_and_two_moments_in_float32(tmp_path: Path) -> None:
    folder = make_model(tmp_path, {"model.safetensors": {**EMBEDDING, **HEAD, **LAYER}})
    assert checkpoint_bytes(str(folder)) == (256 + 256 + 8) * 12


def test_tied_weights_count_once_in_whatever_file_they_are(tmp_path: Path) -> None:
    for name, tensors in (("both", {**EMBEDDING, **HEAD, **LAYER}), ("one", {**EMBEDDING, **LAYER})):
        folder = make_model(tmp_path / name, {"model.safetensors": tensors}, tied=True)
        assert checkpoint_bytes(str(folder)) == (256 + 8) * 12
    no_embedding = make_model(tmp_path / "head", {"model.safetensors": {**HEAD, **LAYER}}, tied=True)
    assert checkpoint_bytes(str(no_embedding)) == (256 + 8) * 12


def test_the_parts_that_an_index_names_are_added_and_no_others(tmp_path: Path) -> None:
    parts = {"model-1.safetensors": EMBEDDING, "model-2.safetensors": LAYER, "consolidated.safetensors": HEAD}
    folder = make_model(tmp_path, parts)
    names = {tensor: name for name, tensors in parts.items() for tensor in tensors if name.startswith("model")}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    assert checkpoint_bytes(str(folder)) == (256 + 8) * 12
    (folder / "model-2.safetensors").unlink()
    assert checkpoint_bytes(str(folder)) is None


def test_the_embedded_model_has_300_thousand_parameters() -> None:
    assert checkpoint_bytes(embedded_model()) == 299_776 * 12


def test_no_size_where_there_are_no_headers_to_read(tmp_path: Path) -> None:
    for name, file, content in (
        ("none", "other.txt", b""),
        ("bin", "pytorch_model.bin", b"PK"),
        ("torn", "model.safetensors", b"\x08\x00"),
        ("pointer", "model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        ("index", "model.safetensors.index.json", b"{}"),
        ("list", "model.safetensors.index.json", b"[]"),
        ("json", "model.safetensors.index.json", b"{"),
    ):
        folder = make_model(tmp_path / name, {})
        (folder / file).write_bytes(content)
        assert checkpoint_bytes(str(folder)) is None, name
    for hub in ("no-such/model", "not/a/name", "", "x" * 5000):
        assert checkpoint_bytes(hub) is None


def test_a_hub_model_is_counted_once_it_was_downloaded(tmp_path: Path) -> None:
    repository = tmp_path / "models--some--model"
    make_model(repository / "snapshots" / "0a1b", {"model.safetensors": LAYER})
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0a1b")
    code = (
        "import sys; from orchestrator.disk import checkpoint_bytes\n"
        "print(checkpoint_bytes('some/model'), {'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"HF_HUB_CACHE": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "96 set()\n"


def test_one_more_than_is_kept_has_to_fit_less_what_is_there() -> None:
    assert [room_needed(10, keep=3, there=there) for there in range(6)] == [40, 30, 20, 10, 10, 10]
    assert room_needed(10, keep=1) == 20
    assert room_needed(10, keep=None) == 0


def test_the_disk_of_a_folder_that_is_not_there_is_that_of_the_one_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    here = shutil.disk_usage(tmp_path).free
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "a" / "b", Path("a/b"), tmp_path / "file" / "a"):
        assert abs(free_bytes(folder) - here) < 256 * MIB
    assert not (tmp_path / "a").exists()


def test_what_fits_passes_and_what_does_not_says_how_much_where_and_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "demo"
    check_room(folder, 0)
    check_room(folder, 1)
    with pytest.raises(DiskTooSmall) as caught:
        check_room(folder, 2**60)
    told = str(caught.value)
    assert told.startswith(f"{folder}: 1048576 TiB are needed for checkpoints and ")
    for part in (" are free there", "evenkeel runs delete", "checkpoint.keep", "--runs"):
        assert part in told
    assert "\n" not in told


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_small_disk_has_room_until_it_is_filled(small_disk: Path) -> None:
    check_room(small_disk / "runs" / "demo", 4 * MIB)
    (small_disk / "ballast").write_bytes(bytes(3 * MIB))
    check_room(small_disk, MIB)
    with pytest.raises(DiskTooSmall, match=r": 1\.5 MiB are needed for checkpoints and 1 MiB are free there: "):
        check_room(small_disk / "runs", MIB * 3 // 2)


def test_sizes_are_short() -> None:
    sizes = (0, 1, 999, 1000, 1023, 1024, 1536, 999 * 1024, 1000 * 1024, 7654321, 29 * MIB, 2**50)
    told = ["0 B", "1 B", "999 B", "0.977 KiB", "0.999 KiB", "1 KiB", "1.5 KiB", "999 KiB", "0.977 MiB", "7.3 MiB"]
    assert [size_text(size) for size in sizes] == [*told, "29 MiB", "1024 TiB"]
