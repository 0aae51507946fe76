"""The manifest: no byte of a checkpoint's folder can change, go or come without being noticed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from orchestrator.checkpoints.manifest import (
    BLOCK_BYTES,
    DIGEST,
    MANIFEST,
    CheckpointDamaged,
    Manifest,
    saved_file,
    sizes_below,
)
from orchestrator.checkpoints.store import CheckpointStore

NAMES = [
    *(f"learner/{name}" for name in ("__0_0.distcp", "__1_0.distcp", ".metadata", "empty")),
    "state.json",
    "config.yaml",
    MANIFEST,
    DIGEST,
]


@pytest.fixture
def folder(store: CheckpointStore, write: Callable[..., Path]) -> Path:
    """Of a checkpoint that is fine."""
    path = write(store, 40)
    Manifest.read_verified(path)
    return path


def damage(folder: Path) -> str:
    with pytest.raises(CheckpointDamaged) as raised:
        Manifest.read_verified(folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def place(folder: Path, rng: Random) -> tuple[Path, int]:
    """A byte of the folder, each as likely as any other."""
    byte = rng.randrange(sum(sizes_below(folder).values()))
    for name, size in sizes_below(folder).items():
        if byte < size:
            return folder / name, byte
        byte -= size
    raise AssertionError


def test_a_folder_holds_what_was_written_and_nothing_else(folder: Path) -> None:
    assert sorted(sizes_below(folder)) == sorted(NAMES)
    assert sorted(file.name for file in Manifest.read_verified(folder).files) == sorted(NAMES[:-2])


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum")
def test_the_digest_of_the_manifest_can_be_checked_by_hand(folder: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", DIGEST], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{MANIFEST}: OK\n")


@pytest.mark.parametrize("seed", range(20))
def test_a_truncated_file_is_found_wherever_it_ends(folder: Path, seed: int) -> None:
    path, length = place(folder, Random(f"truncated/{seed}"))
    whole = path.stat().st_size
    os.truncate(path, length)
    name = path.relative_to(folder).as_posix()
    if name not in (MANIFEST, DIGEST):
        assert damage(folder) == f"{name}: {length:,} bytes instead of {whole:,}"
    else:
        assert damage(folder).startswith(f"{name}: ")


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_is_found_wherever_it_is(folder: Path, seed: int) -> None:
    rng = Random(f"flipped/{seed}")
    path, byte = place(folder, rng)
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    name = path.relative_to(folder).as_posix()
    if name != DIGEST:
        assert damage(folder) == f"{name}: its content has changed (sha256)"
    else:
        assert damage(folder)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "learner/empty"])
def test_the_first_and_the_last_byte_of_every_file_count(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    for byte in (0, len(whole) - 1):
        (folder / name).write_bytes(whole[:byte] + bytes([whole[byte] ^ 32]) + whole[byte + 1 :])
        assert damage(folder).startswith(("manifest.", f"{name}: "))
    (folder / name).write_bytes(whole)
    Manifest.read_verified(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert damage(folder) == f"{name}: is missing"


def test_a_missing_folder_of_the_learners_is_named_by_its_first_file(folder: Path) -> None:
    shutil.rmtree(folder / "learner")
    assert damage(folder) == "learner/__0_0.distcp: is missing"


@pytest.mark.parametrize("name", ["notes.txt", "learner/__2_0.distcp", "learner/more/x", ".hidden"])
def test_a_file_that_was_not_written_is_named(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    assert damage(folder) == f"{name}: is no part of the checkpoint"


@pytest.mark.parametrize("name", NAMES)
def test_a_longer_file_is_damaged(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(b"\n")
    assert damage(folder).startswith(("manifest.", f"{name}: "))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_in_the_place_of_another_kind_is_damaged(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    assert damage(folder).startswith(f"{name}: ")


def test_a_digest_of_the_same_digits_in_another_form_is_damaged(folder: Path) -> None:
    (folder / DIGEST).write_text((folder / DIGEST).read_text().upper())
    assert damage(folder) == f"{DIGEST}: is not the SHA-256 of {MANIFEST} in one line"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"format": 2}', "format 2, this version reads 1"),
        ('{"format": 1, "files": []}', "is no manifest"),
        ('{"format": 1, "fingerprint": "", "files": [{"name": "x"}]}', "is no manifest"),
        ("[]", "is no manifest"),
        ("{", "is no manifest"),
    ],
)
def test_another_format_is_not_read(folder: Path, content: str, said: str) -> None:
    (folder / MANIFEST).write_text(content)
    (folder / DIGEST).write_text(f"{sha256(content.encode()).hexdigest()}  {MANIFEST}\n")
    assert damage(folder) == f"{MANIFEST}: {said}"


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 7])
def test_files_are_hashed_to_their_end(tmp_path: Path, size: int) -> None:
    content = Random(size).randbytes(size)
    (tmp_path / "x").write_bytes(content)
    assert saved_file(tmp_path, "x").sha256 == sha256(content).hexdigest()


def test_nothing_that_could_unpickle_a_tensor_is_loaded() -> None:
    code = "import sys, orchestrator.checkpoints.writer; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
