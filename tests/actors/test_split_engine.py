"""An engine that is split over several processes: weights reach all of them, and they end with their actor."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
ENV = {
    "PYTHONPATH": str(ROOT),
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TORCH_COMPILE_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "HF_HUB_OFFLINE": "1",
}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_weights_reach_both_halves_of_a_split_engine_whose_processes_end_with_it(tmp_path: Path) -> None:
    env = {**os.environ, **ENV, "TMPDIR": str(tmp_path)}
    program = str(ROOT / "tests" / "actors" / "split_engine.py")
    command = [sys.executable, program]
    done = subprocess.run(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, timeout=600, check=False)
    found = json.loads(done.stdout.decode().strip().rpartition("\n")[2])
    assert found["block_size"] == 128
    assert found["before"] < 1e-3
    assert found["stale"] > 0.05
    assert found["sent"] < 1e-3
    assert found["sent again"] < 1e-3
    assert len(found["processes"]) >= 2
    deadline = time.monotonic() + 120
    while any(psutil.pid_exists(pid) for pid in found["processes"]):
        assert time.monotonic() < deadline, "processes of the engine outlived it"
        time.sleep(0.2)
