"""Bare programs: processes that import none of our packages, asked by lines."""

import ast
from pathlib import Path

import numpy as np
import pytest

from orchestrator.bench import bare_process as module
from orchestrator.bench.bare_process import BareFailed, bare_process

OURS = {"actors", "cluster", "orchestrator", "sweeps"}
PROGRAMS = sorted(path for path in module.BARE.glob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_bare_programs_import_none_of_our_packages(path: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add((node.module or "").partition(".")[0])
    assert found & OURS == set()


def test_there_are_bare_programs() -> None:
    assert {"exp", "logprobs", "generate", "train", "weights"} <= {path.stem for path in PROGRAMS}


def test_a_bare_program_answers_every_line_with_its_seconds(tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.zeros(10, np.float32))
    with bare_process("exp", {"file": str(tmp_path / "tokens.npy")}) as process:
        assert process.seconds() > 0
        assert process.once() == {"seconds": pytest.approx(0, abs=60)}


def test_the_memory_benchmarks_side_of_ours_tells_peak_and_time() -> None:
    shape = {"tokens": 16, "width": 8, "vocabulary": 64, "threads": 1, "chunk_mib": 1}
    settings = {**shape, "foreseen": True, "corrected": True}
    with bare_process(("-m", "orchestrator.bench.scorer"), settings) as process:
        answer = process.once()
    assert answer["seconds"] > 0 and answer["entropy"] > 0
    assert answer["peak_bytes"] < 100 * 2**20


def test_a_program_that_ends_is_told_by_name_and_exit_code(tmp_path: Path) -> None:
    with (
        pytest.raises(BareFailed, match="exp has ended with exit code 1"),
        bare_process("exp", {"file": str(tmp_path / "absent.npy")}),
    ):
        pytest.fail("it came up")
