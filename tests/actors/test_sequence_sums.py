"""The compiled loop against the library's functions, at the edges of float64, and without a place for its cache."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from llvmlite.binding import ffi

from actors import sequence_sums as module
from actors.logprob_pairs import CLIP
from actors.sequence_sums import sequence_sums

ROOT = Path(__file__).parents[2]
LOGPROB = st.floats(-1e4, 0.0) | st.floats(-1e-3, 0.0) | st.floats(-50.0, 0.0)


def by_hand(a: float, b: float) -> list[float]:
    d = a - b
    clipped = min(CLIP, max(-CLIP, d))
    ratio, excess = math.exp(clipped), math.expm1(clipped)
    gap = math.exp(max(a, b)) * -math.expm1(-abs(d))
    return [a, b, d, abs(d), excess - d, gap, excess * (ratio + 1), ratio, ratio**2, abs(d), gap]


@given(LOGPROB, LOGPROB)
@example(0.0, -1e4)
@example(-1e4, 0.0)
@example(0.0, -699.0)
@example(-1.0, -702.0)
@example(-500.0, -1199.0)
@example(-710.0, -709.0)
@example(-5e-324, 0.0)
@example(-20.0, 0.0)
@example(0.0, -20.000001)
@example(math.log(2) / 2 - 1, -1.0)
def test_a_token_alone_gives_what_the_formulas_say(a: float, b: float) -> None:
    (found,) = sequence_sums(np.array([a]), np.array([b]), np.array([1])).T
    ratio = math.exp(min(CLIP, a - b))
    # k3 is as good as the last digit of rho - 1, here and in the formula; exp(b + d) as that of d
    loose = {4: 4e-16 * max(1.0, ratio), 5: 3e-16 * abs(a - b), 10: 3e-16 * abs(a - b)}
    for row, (value, expected) in enumerate(zip(found.tolist(), by_hand(a, b), strict=True)):
        assert value == pytest.approx(expected, rel=2e-15, abs=loose.get(row, 0.0) + 1e-300), row


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 64, 1001])
def test_a_sequence_gives_the_sums_of_its_tokens_whatever_lanes_they_fall_in(dtype: type, length: int) -> None:
    rng = np.random.default_rng(length)
    b = -rng.exponential(0.7, 2 * length).astype(dtype)
    a = b + rng.normal(0, 3.0, b.size).astype(dtype)
    found = sequence_sums(a, b, np.array([length, 2 * length]))
    for sequence, tokens in enumerate((slice(0, length), slice(length, None))):
        of_each = np.array([by_hand(x, y) for x, y in zip(a[tokens].tolist(), b[tokens].tolist(), strict=True)])
        expected = [*(math.fsum(column) for column in of_each.T[:9]), *of_each.max(axis=0)[9:]]
        scale = np.abs(of_each).sum(axis=0)[:9].tolist() + expected[9:]
        assert np.abs(found[:, sequence] - expected).tolist() == pytest.approx(np.zeros(11), abs=1e-14 * max(scale))


def test_float32_is_widened_before_anything_is_computed() -> None:
    rng = np.random.default_rng(1)
    a, b = (-rng.exponential(0.7, 500).astype(np.float32) for _ in range(2))
    narrow = sequence_sums(a, b, np.array([500]))
    assert narrow.tolist() == sequence_sums(a.astype(float), b.astype(float), np.array([500])).tolist()


@pytest.mark.parametrize("lengths", [[5] * 400, [1, 1000, 1, 1, 1000], [2000], [300, 1, 1, 1]])
def test_threads_change_no_bit(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENS_FOR_A_THREAD", 100)
    rng = np.random.default_rng(2)
    a, b = (-rng.exponential(0.7, sum(lengths)) for _ in range(2))
    ends = np.cumsum(lengths)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = sequence_sums(a, b, ends)
    for threads in ("2", "3", "64"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        np.testing.assert_array_equal(sequence_sums(a, b, ends), alone)


def test_no_sequences_have_no_sums() -> None:
    assert sequence_sums(np.empty(0), np.empty(0), np.empty(0, np.int64)).shape == (11, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 8, 19])
def test_what_is_not_finite_shows_in_the_sum_of_its_column(value: float, place: int) -> None:
    a = np.full(20, -1.0)
    a[place] = value
    found = sequence_sums(a, np.full(20, -1.0), np.array([20]))
    assert not math.isfinite(found[0, 0])
    assert found[1, 0] == -20


def test_it_works_where_its_machine_code_cannot_be_kept(tmp_path: Path) -> None:
    package = tmp_path / "actors"
    package.mkdir()
    for name in ("__init__.py", "sequence_sums.py", "logprob_pairs.py"):
        shutil.copy(ROOT / "actors" / name, package / name)
    (package / "__pycache__").write_text("not a folder")
    code = "from actors.sequence_sums import *; a = np.zeros(3); print(sequence_sums(a, a, np.array([3]))[7])"
    nowhere = {
        "NUMBA_CACHE_DIR": "",
        "HOME": "/dev/null",
        "XDG_CACHE_HOME": "/dev/null",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "[3.]"), ran.stderr


def test_a_cpu_engine_of_vllm_can_come_up_in_the_same_process() -> None:
    """What it does with every object of every module that is loaded."""
    for module_ in list(sys.modules.values()):
        for value in list(vars(module_).values()) if hasattr(module_, "__dict__") else ():
            if "llvmlite" in str(type(value).__module__) and hasattr(value, "__dict__"):
                assert hasattr(vars(value), "get")
    assert ffi.lib.LLVMPY_GetVersionInfo() > 0


def test_a_full_disk_costs_the_cache_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def loop(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        arguments[3][:] = 1.0

    monkeypatch.setattr(module, "_compiled", lambda: loop)
    assert sequence_sums(np.zeros(2), np.zeros(2), np.array([2])).tolist() == [[1.0]] * 11
